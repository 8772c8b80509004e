"""What the node remembers, in virtual time: a node that is cut off without an answer goes by its record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.policy_verifier import CannotVerify, PolicyVerifier
from edgemodel_operator.core.trust import Policy, parse_policy
from edgemodel_operator.node.judge import BUDGET_SECONDS
from edgemodel_operator.node.metrics import NodeMetrics
from edgemodel_operator.node.record import Record
from edgemodel_operator.node.verifier import KEYS_SECONDS, RememberingVerifier
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.signing.verdict import Verdict
from support.virtual_time import run_in_virtual_time, seconds

DIGEST = f"sha256:{'a' * 64}"
KNOWN = parse_reference(f"registry.plant-a.local:5000/models/line@{DIGEST}")
OTHER = parse_reference(f"registry.plant-a.local:5000/models/other@{DIGEST}")
CONNECT_SECONDS = 5.0
"""After this long a connection that nobody answers is given up."""


def policy(keys: int) -> Policy:
    refs = [{"secretRef": {"name": f"key-{number}"}} for number in range(keys)]
    authorities = [
        {"name": "plant", "keys": refs[: keys // 2]},
        {"name": "maker", "keys": refs[keys // 2 :]},
    ]
    parsed = parse_policy({"metadata": {"name": "p"}, "spec": {"images": ["**"], "authorities": authorities}})
    assert isinstance(parsed, Policy)
    return parsed


@dataclass
class Api:
    """An API server whose Secrets hold no keys; cut off, nobody answers."""

    is_cut_off: bool = False
    reads: list[str] = field(default_factory=list)

    async def get(self, path: str) -> None:
        self.reads.append(path)
        if self.is_cut_off:
            await asyncio.sleep(CONNECT_SECONDS)
            raise KubeError(0, "nobody answers")


class Examining(PolicyVerifier):
    """Cannot reach the registry."""

    async def examine(self, *_: object) -> Verdict:
        raise CannotVerify("the registry is away")


class Registries:
    async def client(self) -> Any:
        return None


@dataclass
class Node:
    api: Api = field(default_factory=Api)
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        store = AuthorityStore(cast("Any", self.api), "edgemodel-system", seconds)
        self.verifier = RememberingVerifier(Examining(store), Registries(), self.record, NodeMetrics())

    def verified(self, image: Reference, asked: Policy) -> None:
        """Have it verified before, under the keys that could be read then."""
        self.record.demands[asked.hash] = "keys of then"
        self.record.keep(str(image), "keys of then")

    async def pull(self, image: Reference, asked: Policy) -> tuple[bool | None, float]:
        """Give whether it may be pulled (None: it took too long) and after how many seconds."""
        begun = seconds()
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                verdict = await self.verifier.verify(image, asked)
        except TimeoutError:
            return None, seconds() - begun
        except CannotVerify:
            return False, seconds() - begun
        return verdict.trusted, seconds() - begun


def test_a_node_that_is_cut_off_without_an_answer_pulls_what_it_verified() -> None:
    async def scene() -> None:
        node, asked = Node(Api(is_cut_off=True)), policy(keys=6)
        node.verified(KNOWN, asked)
        pulls = await asyncio.gather(*(node.pull(KNOWN, asked) for _ in range(3)))
        assert pulls == [(True, KEYS_SECONDS)] * 3
        # Each key is asked for once, although nobody waited for the end.
        await asyncio.sleep(CONNECT_SECONDS)
        assert sorted(node.api.reads) == sorted(set(node.api.reads))
        # That nobody answers is known now, and keeps no pull waiting.
        assert await node.pull(KNOWN, asked) == (True, 0.0)
        await node.verifier.close()

    run_in_virtual_time(scene())


def test_the_keys_of_a_policy_are_looked_for_at_the_same_time() -> None:
    async def scene() -> None:
        node, asked = Node(Api(is_cut_off=True)), policy(keys=6)
        trusted, took = await node.pull(OTHER, asked)
        assert (trusted, took) == (False, CONNECT_SECONDS)
        await node.verifier.close()

    run_in_virtual_time(scene())


def test_what_was_verified_under_keys_that_are_gone_is_no_longer_pulled_when_that_is_known() -> None:
    async def scene() -> None:
        node, asked = Node(), policy(keys=2)
        node.verified(KNOWN, asked)
        assert await node.pull(KNOWN, asked) == (False, 0.0)
        await node.verifier.close()

    run_in_virtual_time(scene())
