"""One image against one policy: as this node remembers it, or from the registry."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from edgemodel_operator.adapters.authorities import PolicyDemand
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.policy_verifier import CannotVerify, PolicyVerifier, conclude
from edgemodel_operator.core.trust import Policy, PolicyVerdict
from edgemodel_operator.node.metrics import NodeMetrics
from edgemodel_operator.node.record import UNKNOWN_DEMAND, Record
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.verdict import Verdict

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")

MAX_RUNNING = 64
KEYS_SECONDS = 2.0
"""So long the keys of a policy are waited for where the record may do: a pull has seven seconds in all."""


class Registries(Protocol):
    """Where the client for a registry comes from."""

    async def client(self) -> RegistryClient:
        """Give the client. Raises KubeError while its credentials cannot be read."""
        ...


class RememberingVerifier:
    """Verifies images and remembers what held; use it in one event loop only.

    While the keys of a policy cannot be read, or not in time, what held under the keys that were read last
    still holds: a node that boots at a site without API server starts what it verified before.
    """

    def __init__(
        self, verifier: PolicyVerifier, registries: Registries, record: Record, metrics: NodeMetrics
    ) -> None:
        self.changes = 0
        self._verifier = verifier
        self._registries = registries
        self._record = record
        self._metrics = metrics
        self._running: dict[tuple[str, str], asyncio.Task[Verdict]] = {}
        self._reading: dict[str, asyncio.Task[PolicyDemand]] = {}

    async def verify(self, image: Reference, policy: Policy) -> PolicyVerdict:
        """Tell whether the policy holds for an image named by digest. Raises CannotVerify."""
        reading = self._read_keys(policy)
        in_time, _ = await asyncio.wait({reading}, timeout=KEYS_SECONDS)
        recorded = self._record.demands.get(policy.hash, UNKNOWN_DEMAND)
        if not in_time and self._record.holds(str(image), recorded):
            return self._remembered(policy)
        asked = await asyncio.shield(reading)
        if self._record.holds(str(image), recorded if asked.is_unknown else asked.fingerprint):
            return self._remembered(policy)
        verdict = await self._examine(image, asked)
        result = conclude(image, policy, asked, verdict)
        if result.trusted:
            self.changes += self._record.keep(str(image), asked.fingerprint)
        return result

    async def demand_of(self, policy: Policy) -> PolicyDemand:
        """Say what a policy asks for, and remember that if all of its keys could be looked up."""
        return await asyncio.shield(self._read_keys(policy))

    async def close(self) -> None:
        """Cancel what is still running."""
        running = (*self._running.values(), *self._reading.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _remembered(self, policy: Policy) -> PolicyVerdict:
        self._metrics.remembered.inc()
        return PolicyVerdict(policy.name, policy.spec.mode, trusted=True)

    def _read_keys(self, policy: Policy) -> asyncio.Task[PolicyDemand]:
        """Look up what a policy asks for, at most once at a time; goes on when the caller has gone."""
        task = self._reading.get(policy.hash)
        if task is None:
            task = asyncio.ensure_future(self._look_up(policy))
            self._reading[policy.hash] = task
            task.add_done_callback(lambda done: _forget(self._reading, policy.hash, done))
        return task

    async def _look_up(self, policy: Policy) -> PolicyDemand:
        asked = await self._verifier.demand_of(policy)
        if not asked.is_unknown and self._record.demands.get(policy.hash) != asked.fingerprint:
            self._record.demands[policy.hash] = asked.fingerprint
            self.changes += 1
        return asked

    async def _examine(self, image: Reference, asked: PolicyDemand) -> Verdict:
        """Verify from the registry, at most once at a time; goes on when the caller has gone."""
        key = (str(image), asked.fingerprint)
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= MAX_RUNNING:
                raise CannotVerify(f"{MAX_RUNNING} verifications run already; try again in a moment")
            task = asyncio.ensure_future(self._fetch(image, asked))
            self._running[key] = task
            task.add_done_callback(lambda done: _forget(self._running, key, done))
        return await asyncio.shield(task)

    async def _fetch(self, image: Reference, asked: PolicyDemand) -> Verdict:
        try:
            client = await self._registries.client()
        except KubeError as error:
            raise CannotVerify(str(error).rstrip(".")) from error
        return await self._verifier.examine(client, image, asked.demand)


def _forget(tasks: dict[_Key, asyncio.Task[_Result]], key: _Key, done: asyncio.Task[_Result]) -> None:
    del tasks[key]
    if not done.cancelled():
        done.exception()  # looked at, for when every caller has gone
