"""Which verdicts are remembered between passes, and what makes them be asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.core.trust import AnyPolicy, parse_policy
from edgemodel_operator.core.world import Trust, Verdict
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.reconcile import verdicts
from edgemodel_operator.reconcile.verdicts import TRUSTED_SECONDS, RememberingVerifier

IMAGE = "registry.plant-a.local/models/line@sha256:" + "a" * 64


def policy(**spec: object) -> AnyPolicy:
    keys = [{"name": "plant", "keys": [{"secretRef": {"name": "plant-key"}}]}]
    return parse_policy({"metadata": {"name": "p"}, "spec": {"images": ["**"], "authorities": keys} | spec})


POLICIES = (policy(),)


@dataclass
class Inner:
    """Answers what it is set to, and counts how often it looked."""

    answer: Trust = Trust.TRUSTED
    keys: str | None = "first key"
    looked: int = 0

    async def verify(
        self,
        image: str,
        namespace: str,
        policies: Sequence[AnyPolicy],
        credentials: Mapping[str, Credential],
    ) -> Verdict:
        self.looked += 1
        return Verdict(self.answer)

    async def fingerprint(self, image: str, namespace: str, policies: Sequence[AnyPolicy]) -> str | None:
        return self.keys


@dataclass
class Clock:
    """The time that passes while nothing is done."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Bench:
    """A memory in front of an inner verifier."""

    inner: Inner = field(default_factory=Inner)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.verifier = RememberingVerifier(self.inner, Metrics())

    async def ask(self, namespace: str = "plant-a", policies: Sequence[AnyPolicy] = POLICIES) -> Trust:
        return (await self.verifier.verify(IMAGE, namespace, policies, {})).trust


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(verdicts, "time", made.clock)
    return made


async def test_what_is_trusted_is_not_looked_at_again_for_a_while(bench: Bench) -> None:
    for _ in range(3):
        assert await bench.ask() is Trust.TRUSTED
    assert bench.inner.looked == 1
    bench.clock.now += TRUSTED_SECONDS
    await bench.ask()
    assert bench.inner.looked == 2


async def test_another_namespace_and_another_policy_are_other_questions(bench: Bench) -> None:
    await bench.ask()
    await bench.ask(namespace="plant-b")
    await bench.ask(policies=(policy(threshold=1, namespaces=["plant-*"]),))
    assert bench.inner.looked == 3


@pytest.mark.parametrize("answer", [Trust.UNTRUSTED, Trust.UNKNOWN])
async def test_nothing_else_is_remembered(bench: Bench, answer: Trust) -> None:
    bench.inner.answer = answer
    for count in (1, 2):
        assert await bench.ask() is answer
        assert bench.inner.looked == count


async def test_a_key_that_changes_behind_the_policy_asks_anew(bench: Bench) -> None:
    await bench.ask()
    bench.inner.keys, bench.inner.answer = "second key", Trust.UNTRUSTED
    assert await bench.ask() is Trust.UNTRUSTED
    # What was trusted under the first key is not, because that one comes back.
    bench.inner.keys = "first key"
    assert await bench.ask() is Trust.UNTRUSTED


async def test_a_key_that_cannot_be_read_for_a_moment_changes_nothing(bench: Bench) -> None:
    await bench.ask()
    bench.inner.keys, bench.inner.answer = None, Trust.UNKNOWN
    assert await bench.ask() is Trust.TRUSTED
    assert bench.inner.looked == 1
