"""The keys that sign: read from their Secrets at each use, unsealed once for each content."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edgemodel_operator.adapters.signer_protocol import KeyTroubleReason
from edgemodel_operator.signing.errors import KeyLoadError
from edgemodel_operator.signing.keys import LocalKey, Signer, parse_signing_secret
from edgemodel_operator.signing.wipe import wipe

_Result = TypeVar("_Result")

ReadSecret = Callable[[str], Awaitable[Mapping[str, bytes] | None]]
"""Gives the decoded fields of a Secret by name, made for this call alone: they are overwritten after use.

None if there is no such Secret. Raises KubeError.
"""


@dataclass(frozen=True)
class Trouble:
    """Why a key cannot be used, and in `message` what a person has to do. It shows nothing of the key."""

    reason: KeyTroubleReason
    problem: str
    """What is wrong, more exactly: `Missing`, or a KeyProblem."""
    message: str


class KeyTrouble(Exception):  # noqa: N818 - reads as the fact it states
    """A key is wanted that cannot be used now."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


class UnknownKey(Exception):  # noqa: N818 - reads as the fact it states
    """No key of this fingerprint signs now."""


@dataclass(frozen=True)
class _Unsealed:
    """What came of one content of a Secret, good or bad: opening it again would cost 64 MiB and 0.2 s."""

    content: bytes
    result: LocalKey | Trouble


class KeyRing:
    """The keys of several Secrets, all of which sign, and those that live outside.

    Secrets are read anew each time: a key that was taken away stops signing at once. Keys are kept in memory
    only while their Secret holds them.
    """

    def __init__(
        self, read: ReadSecret, namespace: str, names: Sequence[str], outside: Sequence[Signer | Trouble] = ()
    ) -> None:
        """`namespace` is only shown; `outside` are keys that need no Secret, or what is wrong with them."""
        self._read = read
        self._namespace = namespace
        self._locks = {name: asyncio.Lock() for name in names}
        self._unsealed: dict[str, _Unsealed] = {}
        self._outside = tuple(outside)

    async def keys(self) -> tuple[Signer, ...]:
        """Give every key. Raises KeyTrouble when one cannot be used, and KubeError."""
        keys: list[Signer] = []
        for result in await self._all():
            if isinstance(result, Trouble):
                raise KeyTrouble(result)
            keys.append(result)
        return tuple(keys)

    async def key(self, fingerprint: str) -> Signer:
        """Give one key, whatever is wrong with others. Raises UnknownKey, KeyTrouble and KubeError."""
        trouble: Trouble | None = None
        for result in await self._all():
            if isinstance(result, Trouble):
                trouble = trouble or result
            elif result.public_key.fingerprint == fingerprint:
                return result
        if trouble is not None:
            raise KeyTrouble(trouble)
        raise UnknownKey(f"no key {fingerprint} signs here now; ask for the keys again")

    def forget(self) -> None:
        """Let go of every key."""
        self._unsealed.clear()

    async def _all(self) -> list[Signer | Trouble]:
        return [*self._outside, *[await self._one(name) for name in self._locks]]

    async def _one(self, name: str) -> LocalKey | Trouble:
        async with self._locks[name]:
            data = await self._read(name)
            if data is None:
                self._unsealed.pop(name, None)
                return self._missing(name)
            try:
                return await self._known(name, data)
            finally:
                for field in data.values():
                    wipe(field)

    async def _known(self, name: str, data: Mapping[str, bytes]) -> LocalKey | Trouble:
        content = _content(data)
        known = self._unsealed.get(name)
        if known is None or known.content != content:
            self._unsealed.pop(name, None)
            # Not cancelled half way: the fields are overwritten when this ends, and the thread reads them.
            unsealing = asyncio.to_thread(self._unseal, name, data)
            known = _Unsealed(content, await _to_its_end(unsealing))
            self._unsealed[name] = known
        return known.result

    def _unseal(self, name: str, data: Mapping[str, bytes]) -> LocalKey | Trouble:
        try:
            return parse_signing_secret(data)
        except KeyLoadError as error:
            message = f"Secret {self._namespace}/{name}: {error}"
            return Trouble(KeyTroubleReason.INVALID, error.problem, message)

    def _missing(self, name: str) -> Trouble:
        where = f"{self._namespace}/{name}"
        return Trouble(
            KeyTroubleReason.NOT_FOUND,
            "Missing",
            f"the signing key Secret {where} does not exist: make one with "
            f"`cosign generate-key-pair k8s://{where}` or `edgemodel keygen`",
        )


def _content(data: Mapping[str, bytes]) -> bytes:
    """Give a hash of all fields, without another copy of them."""
    whole = hashlib.sha256()
    for name, value in sorted(data.items()):
        whole.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(value).digest())
    return whole.digest()


async def _to_its_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
