"""Finding out what the audit asks: verdicts on images, and what an image consists of.

A digest never changes its content. So "trusted" holds as long as policy and keys stay, and the parts of an
image for ever; both are kept. "Untrusted" is kept for a moment only, since a signature may be on its way, and
what could not be found out is not kept at all.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from edgemodel_operator.adapters.authorities import PolicyDemand
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.policy_verifier import (
    CannotVerify,
    ImageNotFound,
    KeyUnavailable,
    PolicyVerifier,
    conclude,
)
from edgemodel_operator.core.audit import Answers, PartQuestion, Question, Unknown
from edgemodel_operator.core.trust import Policy, PolicyVerdict
from edgemodel_operator.oci.errors import NotFound, RegistryError
from edgemodel_operator.oci.image import InvalidImage
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.reconcile.audit_parts import Parts, read_parts

CONCURRENCY = 4
KEEP_TRUSTED_SECONDS = 24 * 3600.0
KEEP_UNTRUSTED_SECONDS = 60.0
MAX_KEPT = 8192
PART_SECONDS = 30.0
GIVE_UP_AFTER = 3
"""Failures of one registry after which an audit asks it nothing more: each may take a minute."""

_V = TypeVar("_V")


class Clients(Protocol):
    """Where the client for registries comes from."""

    async def client(self) -> RegistryClient:
        """Give the client. Raises KubeError while its credentials cannot be read."""
        ...


class _Kept(Generic[_V]):
    """A bounded cache whose entries end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], tuple[float, _V]] = OrderedDict()

    def get(self, key: tuple[str, str]) -> _V | None:
        until, value = self._entries.get(key, (0.0, None))
        if value is None or until <= self._clock():
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: tuple[str, str], value: _V, seconds: float) -> None:
        self._entries[key] = (self._clock() + seconds, value)
        self._entries.move_to_end(key)
        while len(self._entries) > MAX_KEPT:
            self._entries.popitem(last=False)


@dataclass(frozen=True)
class _Round:
    """What one audit shares: who has already failed to answer."""

    gate: asyncio.Semaphore
    failures: Counter[str]

    async def ask(self, registry: str, find_out: Callable[[], Awaitable[_V]]) -> _V | Unknown:
        """Find something out, unless the registry failed too often already."""
        async with self.gate:
            if self.failures[registry] >= GIVE_UP_AFTER:
                return Unknown(f"the registry {registry} does not answer")
            try:
                return await find_out()
            except (ImageNotFound, NotFound, KeyUnavailable) as error:
                return Unknown(str(error).rstrip("."))
            except (CannotVerify, RegistryError, KubeError, TimeoutError) as error:
                self.failures[registry] += 1
                return Unknown(str(error).rstrip(".") or f"the registry {registry} did not answer in time")


class AuditAnswers:
    """Answers the questions of an audit; use it in one event loop only."""

    def __init__(self, verifier: PolicyVerifier, clients: Clients, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._verifier = verifier
        self._clients = clients
        self._verdicts: _Kept[PolicyVerdict] = _Kept(clock)
        self._parts: _Kept[Parts] = _Kept(clock)

    async def demand_of(self, policy: Policy) -> PolicyDemand:
        """Say what a policy asks for, and what is wrong with its keys."""
        return await self._verifier.demand_of(policy)

    async def find_out(
        self,
        policies: Mapping[str, Policy],
        questions: Iterable[Question],
        parts: Iterable[PartQuestion],
    ) -> Answers:
        """Answer as many of the questions as can be. Never raises but for cancellation."""
        one_round = _Round(asyncio.Semaphore(CONCURRENCY), Counter())
        asked, asked_parts = sorted(questions, key=str), sorted(parts, key=str)
        verdicts = await asyncio.gather(
            *(
                one_round.ask(one.image.registry, partial(self._verdict, one.image, policies[one.policy]))
                for one in asked
            )
        )
        told = await asyncio.gather(
            *(one_round.ask(one.image.registry, partial(self._is_part, one)) for one in asked_parts)
        )
        return Answers(dict(zip(asked, verdicts, strict=True)), dict(zip(asked_parts, told, strict=True)))

    async def _verdict(self, image: Reference, policy: Policy) -> PolicyVerdict:
        asked = await self._verifier.demand_of(policy)
        # The name and the mode are no part of what is asked, but of the answer.
        key = (str(image), f"{policy.name} {policy.hash} {asked.fingerprint}")
        kept = self._verdicts.get(key)
        if kept is not None:
            return kept
        client = await self._clients.client()
        found = conclude(image, policy, asked, await self._verifier.examine(client, image, asked.demand))
        self._verdicts.put(key, found, KEEP_TRUSTED_SECONDS if found.trusted else KEEP_UNTRUSTED_SECONDS)
        return found

    async def _is_part(self, question: PartQuestion) -> bool:
        """Tell whether what runs is a platform of the image, or has the configuration of one.

        The configuration holds the digests of all files, so images that share it are the same when they run;
        nodes tell of them by the name and digest under which they met them first.
        """
        image = await self._parts_of(question.image)
        if question.other in image.manifests or question.other in image.configurations:
            return True
        reported = question.reported
        # A node says what it likes: nobody is asked whom the pod does not name.
        if reported is None or reported.digest is None or reported.registry != question.image.registry:
            return False
        try:
            running = await self._parts_of(reported)
        except NotFound:
            return False
        return bool(running.configurations & image.configurations)

    async def _parts_of(self, image: Reference) -> Parts:
        key = (str(image), "")
        kept = self._parts.get(key)
        if kept is None:
            client = await self._clients.client()
            try:
                async with asyncio.timeout(PART_SECONDS):
                    kept = await read_parts(client, image)
            except InvalidImage as error:
                raise CannotVerify(f"{image} is no image: {error}") from error
            self._parts.put(key, kept, KEEP_TRUSTED_SECONDS)
        return kept
