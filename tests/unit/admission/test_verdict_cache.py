"""Which verdicts are kept, for how long, and that nobody is asked twice at once."""

from __future__ import annotations

import asyncio

import pytest

from edgemodel_operator.adapters.policy_verifier import CannotVerify, ImageNotFound
from edgemodel_operator.admission import load, verdict_cache
from edgemodel_operator.admission.verdict_book import SKEW_S, VerdictBook, image_hash
from edgemodel_operator.admission.verdict_cache import (
    FRESH_S,
    KEEP_UNSIGNED_S,
    LAPSE_S,
    Finding,
    Overloaded,
    VerdictCache,
    VerdictKey,
)

KEY = VerdictKey(image_hash("registry.example.com/m@sha256:aa"), "group")
TRUSTED = Finding(trusted=True, by=("plant=sha256:bb",))
AWAY = CannotVerify("the registry is away")


def untrusted(reason: str) -> Finding:
    return Finding(trusted=False, reason=reason, missing="it is not trusted")


class Source:
    """Gives a verdict or an error and counts how often; `gate` holds the answer back."""

    def __init__(self, answer: Finding | Exception) -> None:
        self.answer = answer
        self.asked = 0
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Finding:
        self.asked += 1
        self.started.set()
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def new_cache(clock: Clock | None = None) -> VerdictCache:
    clock = clock or Clock()
    return VerdictCache(VerdictBook(), clock, clock)


@pytest.mark.parametrize(
    ("verdict", "kept_for"),
    [
        (TRUSTED, FRESH_S),
        (untrusted("Unsigned"), KEEP_UNSIGNED_S),
        (untrusted("UnknownKey"), 0),
        (untrusted("Malformed"), 0),
    ],
)
async def test_verdicts_are_used_at_once_as_long_as_they_stay_true(verdict: Finding, kept_for: float) -> None:
    clock, source = Clock(), Source(verdict)
    cache = new_cache(clock)
    first = await cache.get(KEY, source)
    assert first == verdict
    clock.now += max(kept_for - 1, 0)
    again = await cache.get(KEY, source)
    assert (again.trusted, again.by, again.missing) == (verdict.trusted, verdict.by, verdict.missing)
    assert again.known == bool(kept_for)
    assert source.asked == (1 if kept_for else 2)
    clock.now += 2
    await cache.get(KEY, source)
    assert source.asked == (2 if kept_for else 3)


async def test_errors_are_never_kept() -> None:
    source = Source(AWAY)
    cache = new_cache()
    for _ in range(2):
        with pytest.raises(CannotVerify):
            await cache.get(KEY, source)
    assert len(cache.book) == 0
    source.answer = TRUSTED
    assert await cache.get(KEY, source) == TRUSTED
    assert source.asked == 3


async def test_case_25a_an_old_verdict_stands_only_while_nobody_can_be_asked() -> None:
    clock, source = Clock(), Source(TRUSTED)
    cache = new_cache(clock)
    await cache.get(KEY, source)
    clock.now += FRESH_S
    source.answer = AWAY
    stands = await cache.get(KEY, source)
    assert (stands.trusted, stands.stale, stands.by) == (True, True, TRUSTED.by)
    assert source.asked == 2
    source.answer = untrusted("Unsigned")
    assert not (await cache.get(KEY, source)).trusted
    clock.now += KEEP_UNSIGNED_S
    source.answer = AWAY
    with pytest.raises(CannotVerify):
        await cache.get(KEY, source)


async def test_an_old_verdict_does_not_stand_when_the_registry_lacks_the_image() -> None:
    clock, source = Clock(), Source(TRUSTED)
    cache = new_cache(clock)
    await cache.get(KEY, source)
    clock.now += FRESH_S
    source.answer = ImageNotFound("it is not in its registry")
    with pytest.raises(ImageNotFound):
        await cache.get(KEY, source)


async def test_an_old_verdict_is_verified_anew_when_the_registry_answers() -> None:
    clock, source = Clock(), Source(TRUSTED)
    cache = new_cache(clock)
    await cache.get(KEY, source)
    clock.now += FRESH_S
    assert not (await cache.get(KEY, source)).stale
    clock.now += FRESH_S - 1
    assert (await cache.get(KEY, source)).known
    assert source.asked == 2


async def test_an_old_verdict_does_not_wait_long_for_a_silent_registry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdict_cache, "STALE_WAIT_S", 0.01)
    clock, source = Clock(), Source(TRUSTED)
    cache = new_cache(clock)
    await cache.get(KEY, source)
    clock.now += FRESH_S
    source.gate.clear()
    source.answer = untrusted("UnknownKey")
    assert (await cache.get(KEY, source)).stale
    source.gate.set()  # it was asked all the same, and what it says counts from now on
    async with asyncio.timeout(20):
        while (await cache.get(KEY, source)).trusted:
            await asyncio.sleep(0)


async def test_a_verdict_that_nobody_used_for_ninety_days_has_lapsed() -> None:
    clock, source = Clock(), Source(TRUSTED)
    cache = new_cache(clock)
    await cache.get(KEY, source)
    source.answer = AWAY
    for _ in range(3):
        clock.now += LAPSE_S  # each use counts
        assert (await cache.get(KEY, source)).stale
    clock.now += LAPSE_S + 1
    with pytest.raises(CannotVerify):
        await cache.get(KEY, source)


async def test_a_verdict_of_a_time_to_come_is_verified_anew() -> None:
    clock, source = Clock(), Source(TRUSTED)
    cache = new_cache(clock)
    cache.book.trust(KEY.group, KEY.image, (), clock.now + SKEW_S + 1)
    await cache.get(KEY, source)
    assert source.asked == 1


async def test_a_refuted_verdict_is_no_verdict() -> None:
    cache = new_cache()
    cache.book.trust(KEY.group, KEY.image, (), 1.0)
    cache.book.refute(KEY.group, KEY.image, 1_800_000_000.0)
    with pytest.raises(CannotVerify):
        await cache.get(KEY, Source(AWAY))


async def test_what_a_dry_run_finds_is_not_kept_unless_somebody_else_waits_for_it() -> None:
    cache, source = new_cache(), Source(TRUSTED)
    await cache.get(KEY, source, remember=False)
    assert not cache.book.changed
    source.gate.clear()
    source.started.clear()
    dry = asyncio.create_task(cache.get(KEY, source, remember=False))
    await source.started.wait()
    real = asyncio.create_task(cache.get(KEY, source))
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(dry, real) == [TRUSTED, TRUSTED]
    assert source.asked == 2
    assert cache.book.changed
    cache.book.changed = False
    assert (await cache.get(KEY, source, remember=False)).known
    assert not cache.book.changed


@pytest.mark.parametrize(
    "other", [VerdictKey(image_hash("another"), KEY.group), VerdictKey(KEY.image, "another")]
)
async def test_a_verdict_holds_for_its_image_and_demand_only(other: VerdictKey) -> None:
    cache = new_cache()
    await cache.get(KEY, Source(TRUSTED))
    with pytest.raises(CannotVerify):
        await cache.get(other, Source(AWAY))


async def test_case_37a_a_hundred_callers_at_once_are_one_verification() -> None:
    source = Source(TRUSTED)
    source.gate.clear()
    cache = new_cache()
    callers = [asyncio.create_task(cache.get(KEY, source)) for _ in range(100)]
    await source.started.wait()
    source.gate.set()
    assert await asyncio.gather(*callers) == [TRUSTED] * 100
    assert source.asked == 1


async def test_a_caller_that_gives_up_leaves_the_verdict_for_the_next_one() -> None:
    source = Source(TRUSTED)
    source.gate.clear()
    cache = new_cache()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.get(KEY, source)
    source.gate.set()
    assert (await cache.get(KEY, source)).trusted
    assert source.asked == 1


async def test_a_verification_that_fails_after_everybody_left_is_forgotten_quietly() -> None:
    source = Source(AWAY)
    source.gate.clear()
    cache = new_cache()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.get(KEY, source)
    source.gate.set()
    await cache.close()
    source.answer = TRUSTED
    assert await cache.get(KEY, source) == TRUSTED


async def test_unsigned_images_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_cache, "MAX_UNSIGNED", 2)
    cache, source = new_cache(), Source(untrusted("Unsigned"))
    keys = [VerdictKey(str(n), "group") for n in range(3)]
    for key in [*keys, keys[2], keys[0]]:
        await cache.get(key, source)
    assert source.asked == 4  # the third was still known, the first was not
    assert len(cache.book) == 0


async def test_too_many_at_once_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_cache, "MAX_RUNNING", 1)
    cache, source = new_cache(), Source(TRUSTED)
    source.gate.clear()
    first = asyncio.create_task(cache.get(KEY, source))
    await source.started.wait()
    with pytest.raises(Overloaded):
        await cache.get(VerdictKey("another", "group"), source)
    source.gate.set()
    assert await first == TRUSTED


async def test_a_review_without_a_turn_left_still_uses_its_old_verdicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdict_cache, "STALE_WAIT_S", 0.0)
    clock, source = Clock(), Source(TRUSTED)
    cache = new_cache(clock)
    await cache.get(KEY, source)
    clock.now += FRESH_S + 1
    assert (await cache.get(KEY, source, turns=asyncio.Semaphore(0))).stale


def test_images_that_nobody_knows_cannot_take_every_place() -> None:
    assert verdict_cache.MAX_RUNNING < load.MAX_REVIEWS
