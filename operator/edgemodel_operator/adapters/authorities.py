"""From the keys that a policy names to keys that verify: PEM text, or a Secret, read and kept briefly."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.api import trustpolicy
from edgemodel_operator.core.trust import Policy
from edgemodel_operator.signing.demand import Authority
from edgemodel_operator.signing.errors import KeyLoadError
from edgemodel_operator.signing.keys import SECRET_PUBLIC_KEY, PublicKey, load_public_key

KEEP_KEY_S = 30.0
KEEP_PROBLEM_S = 2.0
MAX_KEPT = 256

_Found: TypeAlias = PublicKey | str
"""A key, or the half sentence that says why there is none."""


@dataclass(frozen=True)
class Authorities:
    """The authorities of a policy whose keys are at hand, and what was wrong with the others."""

    usable: tuple[Authority, ...]
    problems: tuple[str, ...]

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Name the keys: a verdict holds for exactly these."""
        return tuple(f"{one.name}={key.fingerprint}" for one in self.usable for key in one.keys)


class AuthorityStore:
    """Finds the keys of policies. Secrets are read from one namespace only: that of the operator.

    A key from a Secret is used for at most KEEP_KEY_S before the Secret is read again.
    """

    def __init__(self, api: KubeApi, namespace: str, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._kept: dict[str, tuple[float, _Found]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def authorities_of(self, policy: Policy) -> Authorities:
        """Find the keys of a policy; never raises."""
        usable: list[Authority] = []
        problems: list[str] = []
        for authority in policy.spec.authorities:
            found = [await self._key(key) for key in authority.keys]
            problems += [
                f'a key of authority "{authority.name}" cannot be used: {one}'
                for one in found
                if isinstance(one, str)
            ]
            keys = tuple(one for one in found if not isinstance(one, str))
            if keys:
                usable.append(Authority(authority.name, keys))
        return Authorities(tuple(usable), tuple(problems))

    async def _key(self, key: trustpolicy.PublicKey) -> _Found:
        if key.data is not None:
            return _load(key.data.encode())
        if key.secret_ref is None:
            return "the policy gives none"
        name = key.secret_ref.name
        async with self._locks.setdefault(name, asyncio.Lock()):
            until, found = self._kept.get(name, (0.0, ""))
            if until > self._clock():
                return found
            found = await self._read(name)
            keep = KEEP_PROBLEM_S if isinstance(found, str) else KEEP_KEY_S
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[name] = (self._clock() + keep, found)
            return found

    async def _read(self, name: str) -> _Found:
        where = f"Secret {name} in namespace {self._namespace}"
        try:
            secret = await self._api.get(f"/api/v1/namespaces/{self._namespace}/secrets/{name}")
        except KubeError as error:
            return f"{where} could not be read (status {error.status})"
        if secret is None:
            return f"{where} does not exist"
        encoded = (secret.get("data") or {}).get(SECRET_PUBLIC_KEY)
        if encoded is None:
            return f"{where} has no field {SECRET_PUBLIC_KEY}"
        try:
            return _load(base64.b64decode(encoded, validate=True))
        except (binascii.Error, TypeError):
            return f"{SECRET_PUBLIC_KEY} of {where} is not base64"


@lru_cache(maxsize=MAX_KEPT)
def _load(pem: bytes) -> _Found:
    try:
        return load_public_key(pem)
    except KeyLoadError as error:
        return str(error)
