"""HTTPS in front of the keys: `POST /v1/sign?key=FINGERPRINT` with the message as body, `GET /v1/keys`.

Whoever asks is identified before a byte of the body is read.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from edgemodel_operator.adapters.signer_protocol import KEYS_PATH, MAX_MESSAGE_BYTES, SIGN_PATH
from edgemodel_operator.signer.audit import Audit
from edgemodel_operator.signer.callers import Caller, Callers
from edgemodel_operator.signer.keyring import KeyRing, KeyTrouble
from edgemodel_operator.signer.messages import Claim, Refused, read_message
from edgemodel_operator.signer.metrics import UNREAD, Result, SignerMetrics
from edgemodel_operator.signer.refusals import INTERNAL, Busy, NotAllowed, Refusal, refusal_of

AT_ONCE = 2
"""Messages that are read and signed at the same time: the largest takes 200 MiB and a second."""
MAX_WAITING = 64
WAIT_SECONDS = 10.0
READ_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SigningPolicy:
    """Who may have what signed."""

    account: str
    """`system:serviceaccount:NAMESPACE:NAME`."""
    repositories: Sequence[str]
    """Globs over `host[:port]/path`."""


@dataclass
class _Asked:
    """What is known of a request so far."""

    caller: Caller | None = None
    claim: Claim | None = None


class SignerServer:
    """Signs for one account what may be signed."""

    def __init__(
        self, keys: KeyRing, callers: Callers, audit: Audit, metrics: SignerMetrics, policy: SigningPolicy
    ) -> None:
        self._keys = keys
        self._callers = callers
        self._audit = audit
        self._metrics = metrics
        self._policy = policy
        self._free = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    @asynccontextmanager
    async def serve(
        self, port: int, context: ssl.SSLContext | None, *, host: str | None = None
    ) -> AsyncGenerator[int, None]:
        """Serve while the block runs; yields the port. Requests under way get to finish at the end."""
        application = web.Application(client_max_size=MAX_MESSAGE_BYTES)
        application.router.add_post(SIGN_PATH, self._sign)
        application.router.add_get(KEYS_PATH, self._list)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=10)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=context).start()
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()

    async def _sign(self, request: web.Request) -> web.Response:
        asked = _Asked()
        try:
            response = await self._make_signature(request, asked)
        except Exception as error:
            refusal = self._refuse(error, asked)
            kind = asked.claim.kind if asked.claim else UNREAD
            result = Result.FAILED if refusal.is_ours else Result.REFUSED
            self._metrics.signatures.labels(kind, result).inc()
            return refusal.response()
        return response

    async def _make_signature(self, request: web.Request, asked: _Asked) -> web.Response:
        asked.caller = await self._identify(request)
        size = request.content_length or 0
        if size > MAX_MESSAGE_BYTES:
            raise web.HTTPRequestEntityTooLarge(max_size=MAX_MESSAGE_BYTES, actual_size=size)
        async with self._slot():
            async with asyncio.timeout(READ_SECONDS):
                message = await request.read()
            began = time.perf_counter()
            claim = asked.claim = await asyncio.to_thread(read_message, message, self._policy.repositories)
            key = await self._keys.key(request.query.get("key", ""))
            signature = await key.sign(message)
            self._metrics.seconds.observe(time.perf_counter() - began)
        fingerprint = key.public_key.fingerprint
        self._metrics.signatures.labels(claim.kind, Result.SIGNED).inc()
        self._audit.signed(asked.caller, claim, fingerprint)
        answer = {"key": fingerprint, "signature": base64.b64encode(signature).decode()}
        return web.json_response(answer)

    async def _list(self, request: web.Request) -> web.Response:
        asked = _Asked()
        try:
            asked.caller = await self._identify(request)
            async with self._slot():
                keys = await self._keys.keys()
        except Exception as error:
            return self._refuse(error, asked).response()
        listed = [{"key": key.public_key.fingerprint, "pem": key.public_key.pem.decode()} for key in keys]
        return web.json_response({"keys": listed})

    async def _identify(self, request: web.Request) -> Caller:
        caller = await self._callers.identify(request.headers.get("Authorization", ""))
        if caller.name != self._policy.account:
            raise NotAllowed(f"{caller.name} may not have anything signed; {self._policy.account} may")
        return caller

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None, None]:
        """Wait for one of the few places; raises Busy."""
        if self._waiting >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} requests wait for a signature already")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise Busy(f"no turn came for {WAIT_SECONDS:g} s") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()

    def _refuse(self, error: Exception, asked: _Asked) -> Refusal:
        """Give the answer, and tell of it."""
        if isinstance(error, KeyTrouble):
            self._metrics.key_problems.labels(error.trouble.problem).inc()
        if isinstance(error, Refused):
            asked.claim = error.claim
        refusal = refusal_of(error)
        if refusal is None:
            _log.error("A request failed unexpectedly", exc_info=error)
            refusal = INTERNAL
        self._audit.refused(asked.caller, asked.claim, refusal.reason, refusal.message)
        return refusal
