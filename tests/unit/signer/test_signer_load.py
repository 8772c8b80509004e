"""How much the signer does at once, and what it says to the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.signer_protocol import SIGN_PATH
from edgemodel_operator.signer import server
from edgemodel_operator.signer.callers import Caller
from edgemodel_operator.signer.metrics import SignerMetrics
from edgemodel_operator.signer.server import AT_ONCE, SignerServer, SigningPolicy
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.simple_signing import make_payload

ACCOUNT = "system:serviceaccount:edgemodel-system:edgemodel-operator"
PAYLOAD = make_payload("registry.plant-a.local:5000/models/line", f"sha256:{'ab' * 32}")


@dataclass
class SlowKeys:
    """A key that signs when it is let."""

    may_sign: asyncio.Event = field(default_factory=asyncio.Event)
    at_work: int = 0
    most_at_work: int = 0
    defect: Exception | None = None

    def __post_init__(self) -> None:
        self._key = LocalKey(ec.generate_private_key(ec.SECP256R1()))
        self.public_key = self._key.public_key

    async def key(self, fingerprint: str) -> SlowKeys:
        if self.defect is not None:
            raise self.defect
        return self

    async def sign(self, message: bytes) -> bytes:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await self.may_sign.wait()
        self.at_work -= 1
        return await self._key.sign(message)


class Everybody:
    """Takes everybody for the operator."""

    async def identify(self, authorization: str) -> Caller:
        return Caller(ACCOUNT)


class NoAudit:
    """Tells nobody."""

    def signed(self, *told: object) -> None: ...

    def refused(self, *told: object) -> None: ...


@asynccontextmanager
async def serving(keys: SlowKeys, metrics: SignerMetrics | None = None) -> AsyncIterator[Any]:
    """Run the server; gives a function that asks for a signature."""
    parts: Any = (keys, Everybody(), NoAudit(), metrics or SignerMetrics(), SigningPolicy(ACCOUNT, ("**",)))
    async with (
        SignerServer(*parts).serve(0, None, host="127.0.0.1") as port,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def ask(body: Any = PAYLOAD) -> tuple[int, str]:
            async with session.post(f"http://127.0.0.1:{port}{SIGN_PATH}", data=body) as response:
                return response.status, (await response.json()).get("reason", "")

        yield ask


async def test_a_few_work_at_once_and_the_others_wait() -> None:
    keys = SlowKeys()
    async with serving(keys) as ask:
        asking = [asyncio.create_task(ask()) for _ in range(20)]
        while keys.at_work < AT_ONCE:
            await asyncio.sleep(0)
        keys.may_sign.set()
        assert {await one for one in asking} == {(200, "")}
    assert keys.most_at_work == AT_ONCE


async def test_too_many_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_WAITING", 1)
    keys = SlowKeys()
    async with serving(keys) as ask:
        asking = [asyncio.create_task(ask()) for _ in range(AT_ONCE + 4)]
        refused = 0
        for answer in asyncio.as_completed(asking):
            status, reason = await answer
            if status == 200:
                continue
            assert (status, reason) == (503, "Busy")
            refused += 1
            if refused == 3:
                keys.may_sign.set()
        assert refused == 3


async def test_who_waits_for_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WAIT_SECONDS", 0.01)
    keys = SlowKeys()
    async with serving(keys) as ask:
        holders = [asyncio.create_task(ask()) for _ in range(AT_ONCE)]
        while keys.at_work < AT_ONCE:
            await asyncio.sleep(0)
        assert await ask() == (503, "Busy")
        keys.may_sign.set()
        assert {await one for one in holders} == {(200, "")}


async def test_a_message_that_never_ends_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.05)
    keys = SlowKeys()
    keys.may_sign.set()

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(3600)

    async with serving(keys) as ask:
        for _ in range(AT_ONCE + 1):
            assert await ask(endless()) == (408, "TooSlow")
        assert await ask() == (200, "")


async def test_a_defect_of_ours_tells_a_stranger_nothing() -> None:
    keys = SlowKeys(defect=RuntimeError("the insides of the signer"))
    metrics = SignerMetrics()
    async with serving(keys, metrics) as ask:
        assert await ask() == (500, "InternalError")
    labels = {"kind": "simple-signing", "result": "failed"}
    assert metrics.registry.get_sample_value("edgemodel_signer_signatures_total", labels) == 1
