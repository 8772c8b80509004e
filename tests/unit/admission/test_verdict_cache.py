"""Which verdicts are kept, for how long, and that nobody is asked twice at once."""

from __future__ import annotations

import asyncio

import pytest

from edgemodel_operator.admission import verdict_cache
from edgemodel_operator.admission.verdict_cache import (
    KEEP_TRUSTED_S,
    KEEP_UNSIGNED_S,
    Overloaded,
    VerdictCache,
    VerdictKey,
)
from edgemodel_operator.oci.errors import RegistryUnavailable
from edgemodel_operator.signing.verdict import Reason, Trusted, Untrusted, Verdict

KEY = VerdictKey("registry.example.com/m@sha256:aa", "policy", ("plant=sha256:bb",))
TRUSTED = Trusted(("plant",), ())


def untrusted(reason: Reason) -> Untrusted:
    return Untrusted(reason, "it is not trusted.")


class Source:
    """Gives a verdict or an error and counts how often; `gate` holds the answer back."""

    def __init__(self, answer: Verdict | Exception) -> None:
        self.answer = answer
        self.asked = 0
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Verdict:
        self.asked += 1
        self.started.set()
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("verdict", "kept_for"),
    [
        (TRUSTED, KEEP_TRUSTED_S),
        (untrusted(Reason.UNSIGNED), KEEP_UNSIGNED_S),
        (untrusted(Reason.UNKNOWN_KEY), 0),
        (untrusted(Reason.MALFORMED), 0),
        (untrusted(Reason.ONLY_ATTESTATION), 0),
    ],
)
async def test_verdicts_are_kept_as_long_as_they_stay_true(verdict: Verdict, kept_for: float) -> None:
    clock, source = Clock(), Source(verdict)
    cache = VerdictCache(clock)
    assert await cache.get(KEY, source) is verdict
    clock.now += max(kept_for - 1, 0)
    assert await cache.get(KEY, source) is verdict
    assert source.asked == (1 if kept_for else 2)
    clock.now += 2
    await cache.get(KEY, source)
    assert source.asked == (2 if kept_for else 3)


async def test_errors_are_never_kept() -> None:
    source = Source(RegistryUnavailable("the registry is away"))
    cache = VerdictCache(Clock())
    for _ in range(2):
        with pytest.raises(RegistryUnavailable):
            await cache.get(KEY, source)
    source.answer = TRUSTED
    assert await cache.get(KEY, source) is TRUSTED
    assert source.asked == 3


@pytest.mark.parametrize(
    "other",
    [
        VerdictKey("registry.example.com/n@sha256:aa", "policy", KEY.keys),
        VerdictKey(KEY.image, "changed", KEY.keys),
        VerdictKey(KEY.image, "policy", ("plant=sha256:cc",)),
    ],
)
async def test_a_verdict_holds_for_its_image_policy_and_keys_only(other: VerdictKey) -> None:
    cache = VerdictCache(Clock())
    await cache.get(KEY, Source(TRUSTED))
    assert cache.known(KEY) is TRUSTED
    assert cache.known(other) is None


async def test_a_hundred_callers_at_once_are_one_verification() -> None:
    source = Source(TRUSTED)
    source.gate.clear()
    cache = VerdictCache(Clock())
    callers = [asyncio.create_task(cache.get(KEY, source)) for _ in range(100)]
    await source.started.wait()
    source.gate.set()
    assert await asyncio.gather(*callers) == [TRUSTED] * 100
    assert source.asked == 1


async def test_a_caller_that_gives_up_leaves_the_verdict_for_the_next_one() -> None:
    source = Source(TRUSTED)
    source.gate.clear()
    cache = VerdictCache(Clock())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.get(KEY, source)
    source.gate.set()
    assert await cache.get(KEY, source) is TRUSTED
    assert source.asked == 1


async def test_a_verification_that_fails_after_everybody_left_is_forgotten_quietly() -> None:
    source = Source(RegistryUnavailable("the registry is away"))
    source.gate.clear()
    cache = VerdictCache(Clock())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.get(KEY, source)
    source.gate.set()
    await cache.close()
    source.answer = TRUSTED
    assert await cache.get(KEY, source) is TRUSTED


async def test_the_cache_is_bounded_and_forgets_what_was_not_used_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdict_cache, "MAX_VERDICTS", 3)
    cache = VerdictCache(Clock())
    keys = [VerdictKey(f"registry.example.com/m@sha256:{n}", "policy", ()) for n in range(4)]
    for key in keys[:3]:
        await cache.get(key, Source(TRUSTED))
    assert cache.known(keys[0]) is TRUSTED
    await cache.get(keys[3], Source(TRUSTED))
    assert [cache.known(key) is not None for key in keys] == [True, False, True, True]


async def test_too_many_at_once_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_cache, "MAX_RUNNING", 1)
    cache, source = VerdictCache(Clock()), Source(TRUSTED)
    source.gate.clear()
    first = asyncio.create_task(cache.get(KEY, source))
    await source.started.wait()
    with pytest.raises(Overloaded):
        await cache.get(VerdictKey("another", "policy", ()), source)
    source.gate.set()
    assert await first is TRUSTED
