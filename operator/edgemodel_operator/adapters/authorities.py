"""From what a policy names to what verifies: keys in PEM text or Secrets, identities under trusted roots."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

from edgemodel_operator.adapters.kube_error import KubeError
from edgemodel_operator.api import trustpolicy
from edgemodel_operator.core.trust import Policy
from edgemodel_operator.signing.demand import (
    Authority,
    Demand,
    Identity,
    PredicateCheck,
    WantedAttestation,
)
from edgemodel_operator.signing.errors import KeyLoadError, SigningError
from edgemodel_operator.signing.keys import SECRET_PUBLIC_KEY, PublicKey, load_public_key

KEEP_KEY_S = 30.0
KEEP_PROBLEM_S = 2.0
"""So much longer than it took to find it a problem is kept: who asks again must not always wait for it."""
MAX_KEPT = 256
MAX_TRUSTED_ROOT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Problem:
    """Why a key or identity of an authority cannot be used; `message` is half a sentence.

    `unknown` means that it could not be found out: it may well be there.
    """

    message: str
    unknown: bool = False
    authority: str = ""


@dataclass(frozen=True)
class PolicyDemand:
    """What a policy asks of an image, as far as its keys are at hand; `problems` says what is not."""

    demand: Demand
    problems: tuple[Problem, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Name all that decides: a verdict holds for exactly this."""
        return self.demand.fingerprint

    @property
    def is_unknown(self) -> bool:
        """Whether some key could not be looked up, as against one that is missing or no key."""
        return any(problem.unknown for problem in self.problems)


_Read: TypeAlias = bytes | Problem
_Found: TypeAlias = PublicKey | Identity | Problem


class ObjectReader(Protocol):
    """Where Secrets and ConfigMaps are read: the API server, or what a person gives in its place."""

    async def get(self, path: str) -> Mapping[str, Any] | None:
        """Read one object by its path in the API; None if there is none. Raises KubeError."""
        ...


class AuthorityStore:
    """Finds the keys and identities of policies, in Secrets and ConfigMaps of the operator's namespace.

    What was read is used for at most KEEP_KEY_S before it is read again.
    """

    def __init__(self, api: ObjectReader, namespace: str, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._kept: dict[str, tuple[float, _Read]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._made: dict[str, tuple[tuple[_Found, ...], PolicyDemand]] = {}

    async def demand_of(self, policy: Policy, *, platforms_signed: bool = False) -> PolicyDemand:
        """Say what a policy asks for; never raises. The same object comes back while nothing changes."""
        authorities = policy.spec.authorities
        # All at once: without an answer each takes as long as a connection is waited for.
        read = await asyncio.gather(*(self._found(authority) for authority in authorities))
        found = [
            (authority.name, one) for authority, these in zip(authorities, read, strict=True) for one in these
        ]
        kept = self._made.get(policy.hash)
        values = tuple(one for _, one in found)
        if kept and kept[0] == values and kept[1].demand.platforms_signed == platforms_signed:
            return kept[1]
        made = _make_demand(policy.spec, found, platforms_signed=platforms_signed)
        if len(self._made) >= MAX_KEPT:
            self._made.clear()
        self._made[policy.hash] = (values, made)
        return made

    async def _found(self, authority: trustpolicy.Authority) -> list[_Found]:
        if authority.keyless is not None:
            return [await self._identity(authority.keyless)]
        return await asyncio.gather(*(self._key(key) for key in authority.keys))

    async def _key(self, key: trustpolicy.PublicKey) -> _Found:
        if key.data is not None:
            return _load_key(key.data.encode())
        if key.secret_ref is None:
            return Problem("the policy gives none")
        pem = await self._object("secrets", "Secret", key.secret_ref.name, SECRET_PUBLIC_KEY)
        return pem if isinstance(pem, Problem) else _load_key(pem)

    async def _identity(self, keyless: trustpolicy.Keyless) -> _Found:
        root = keyless.trusted_root
        text = await self._object("configmaps", "ConfigMap", root.name, root.key)
        return text if isinstance(text, Problem) else await asyncio.to_thread(_load_identity, text, keyless)

    async def _object(self, resource: str, kind: str, name: str, field: str) -> _Read:
        place = f"{resource}/{name}/{field}"
        async with self._locks.setdefault(place, asyncio.Lock()):
            until, read = self._kept.get(place, (0.0, b""))
            begun = self._clock()
            if until > begun:
                return read
            read = await self._read(resource, kind, name, field)
            took = self._clock() - begun
            keep = took + KEEP_PROBLEM_S if isinstance(read, Problem) else KEEP_KEY_S
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[place] = (self._clock() + keep, read)
            return read

    async def _read(self, resource: str, kind: str, name: str, field: str) -> _Read:
        where = f"{kind} {name} in namespace {self._namespace}"
        try:
            found = await self._api.get(f"/api/v1/namespaces/{self._namespace}/{resource}/{name}")
        except KubeError as error:
            remedy = ""
            if error.status == HTTPStatus.FORBIDDEN and kind == "Secret":
                remedy = ": name it in `trustPolicySecrets` of the chart"
            return Problem(f"{where} could not be read (status {error.status}){remedy}", unknown=True)
        if found is None:
            return Problem(f"{where} does not exist")
        return _field(found, field, where)


def _field(found: Mapping[str, Any], field: str, where: str) -> _Read:
    """Give a field of a Secret (whose values are base64) or of a ConfigMap (whose values are text)."""
    value = (found.get("data") or {}).get(field)
    if value is None:
        return Problem(f"{where} has no field {field}")
    if not where.startswith("Secret"):
        return str(value).encode()
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError):
        return Problem(f"{field} of {where} is not base64")


def _make_demand(
    spec: trustpolicy.TrustPolicySpec, found: list[tuple[str, _Found]], *, platforms_signed: bool
) -> PolicyDemand:
    names = [authority.name for authority in spec.authorities]
    problems = tuple(
        Problem(f'a key or identity of authority "{name}" cannot be used: {one.message}', one.unknown, name)
        for name, one in found
        if isinstance(one, Problem)
    )
    demand = Demand(
        authorities=tuple(_authority(name, [one for whose, one in found if whose == name]) for name in names),
        threshold=spec.threshold,
        required=frozenset(one.name for one in spec.authorities if one.required),
        attestations=tuple(
            WantedAttestation(
                one.name,
                one.predicate_type,
                frozenset(one.authorities),
                tuple(PredicateCheck(check.expression, check.message) for check in one.checks),
            )
            for one in spec.attestations
        ),
        any_repository=spec.accept_copies,
        platforms_signed=platforms_signed,
    )
    return PolicyDemand(demand, problems)


def _authority(name: str, found: list[_Found]) -> Authority:
    keys = tuple(one for one in found if isinstance(one, PublicKey))
    identities = tuple(one for one in found if not isinstance(one, PublicKey | Problem))
    return Authority(name, keys, identities)


@lru_cache(maxsize=MAX_KEPT)
def _load_key(pem: bytes) -> _Found:
    try:
        return load_public_key(pem)
    except KeyLoadError as error:
        return Problem(str(error))


@lru_cache(maxsize=MAX_KEPT)
def _load_identity(trusted_root: bytes, keyless: trustpolicy.Keyless) -> _Found:
    if len(trusted_root) > MAX_TRUSTED_ROOT_BYTES:
        return Problem(f"the trusted root has more than {MAX_TRUSTED_ROOT_BYTES} bytes")
    # Verifying certificates takes half a second to import and 20 MB, which only those pay who need it.
    from edgemodel_operator.signing.keyless import load_identity  # noqa: PLC0415

    try:
        return load_identity(
            trusted_root,
            issuer=keyless.issuer,
            issuer_reg_exp=keyless.issuer_reg_exp,
            subject=keyless.subject,
            subject_reg_exp=keyless.subject_reg_exp,
        )
    except SigningError as error:
        return Problem(str(error))
