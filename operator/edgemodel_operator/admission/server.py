"""HTTPS in front of what decides: one request in, one answer out, a refusal for everything that goes wrong.

| path | answers | when something goes wrong, or too much is going on |
|---|---|---|
| `/validate` | whether a pod or a template may be | refused |
| `/mutate` | the digests for the tags in a pod | nothing is patched; `/validate` comes later |
| `/trust` | whether a policy or an exception makes sense | refused |
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import web

from edgemodel_operator.admission.audit_trail import AuditTrail
from edgemodel_operator.admission.judge import Decision, Judge, refuse
from edgemodel_operator.admission.load import Load, TooBusy
from edgemodel_operator.admission.metrics import AdmissionMetrics, Outcome
from edgemodel_operator.admission.review import InvalidReview, Review, make_answer, parse_review, request_uid
from edgemodel_operator.admission.tags import TagMutator
from edgemodel_operator.admission.trust_objects import Change, parse_change

VALIDATE_PATH = "/validate"
MUTATE_PATH = "/mutate"
TRUST_PATH = "/trust"
MAX_BODY_BYTES = 8 * 1024 * 1024
"""An object may have 3 MiB, and an update carries two of them in one review."""
KEEP_ALIVE_S = 120.0
"""Longer than the 90 s after which the API server drops an idle connection: it, not we, must close it."""
READ_SECONDS = 5.0
OVERLOADED = "the admission webhook is overloaded; nothing was checked, so try again in a moment"
INTERNAL_ERROR = "the images could not be verified because of an internal error"

_UID = re.compile(rb'"uid"\s*:\s*"([0-9A-Za-z-]{1,128})"')
_UID_WITHIN = 512
"""The API server writes the identifier first."""

_Answer: TypeAlias = dict[str, Any]
CheckChange: TypeAlias = Callable[[Change], tuple[str, ...]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deciders:
    """What answers the three kinds of questions."""

    judge: Judge
    mutator: TagMutator
    check_change: CheckChange


class AdmissionServer:
    """Answers reviews. Once `draining`, each answer asks the API server to connect anew, elsewhere."""

    def __init__(
        self, deciders: Deciders, trail: AuditTrail, metrics: AdmissionMetrics, load: Load | None = None
    ) -> None:
        self.draining = False
        self._deciders = deciders
        self._trail = trail
        self._metrics = metrics
        self._load = load or Load(metrics)

    @asynccontextmanager
    async def serve(
        self, port: int, context: ssl.SSLContext | None, *, host: str | None = None
    ) -> AsyncGenerator[int, None]:
        """Serve while the block runs; yields the port. Requests under way get to finish at the end."""
        application = web.Application()
        application.router.add_post(VALIDATE_PATH, self._endpoint(self._validate))
        application.router.add_post(MUTATE_PATH, self._endpoint(self._mutate))
        application.router.add_post(TRUST_PATH, self._endpoint(self._judge_change))
        runner = web.AppRunner(
            application, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=10
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, ssl_context=context)
            await site.start()
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()

    def _endpoint(
        self, answer: Callable[[Any, str], Awaitable[_Answer]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Give a handler that reads a review, has it answered, and refuses what goes wrong on the way."""

        async def handle(request: web.Request) -> web.Response:
            began = time.perf_counter()
            try:
                with self._load.holding() as take:  # the body stays in memory to the end
                    response = await self._respond(await _read(request, take), answer)
            except TooBusy:
                self._count(Decision(Outcome.ERROR))
                raise web.HTTPServiceUnavailable(text=f"{OVERLOADED}\n") from None
            except web.HTTPException:
                self._count(Decision(Outcome.ERROR))
                raise
            finally:
                self._metrics.review_seconds.observe(time.perf_counter() - began)
            if self.draining:
                response.force_close()
            return response

        return handle

    async def _respond(self, body: bytes, answer: Callable[[Any, str], Awaitable[_Answer]]) -> web.Response:
        try:
            with self._load.judging():
                document = json.loads(body)
                uid = request_uid(document)
                return web.json_response(await answer(document, uid))
        except TooBusy:
            return self._shed(body, allowed=answer == self._mutate)
        except (ValueError, RecursionError) as error:
            # Without an identifier no valid answer exists; the API server takes this for a denial.
            _log.warning("A request that is no AdmissionReview was refused")
            sentence = str(error) if isinstance(error, InvalidReview) else "The body is not JSON."
            raise web.HTTPBadRequest(text=f"{sentence}\n") from None

    def _shed(self, body: bytes, *, allowed: bool) -> web.Response:
        """Answer without parsing; the API server takes no answer whose identifier is not its own.

        `allowed` is for the mutating webhook alone: it leaves the tags, and the other one decides.
        """
        found = _UID.search(body, 0, _UID_WITHIN)
        if found is None:
            raise TooBusy
        if not allowed:
            self._count(Decision(Outcome.ERROR))
        return web.json_response(make_answer(found[1].decode(), allowed=allowed, message=OVERLOADED))

    async def _validate(self, document: Any, uid: str) -> _Answer:
        decision, review = await self._decide(document)
        self._count(decision)
        if decision.allowed:
            self._metrics.exceptions_used.inc(len(decision.exceptions))
        self._trail.judged(decision, review, uid)
        return make_answer(
            uid, allowed=decision.allowed, message=decision.message, warnings=decision.warnings
        )

    async def _decide(self, document: Any) -> tuple[Decision, Review | None]:
        review: Review | None = None
        try:
            review = parse_review(document)
            del document
            return await self._deciders.judge.decide(review), review
        except InvalidReview as error:
            return refuse(str(error)), review
        except Exception:
            # A defect of ours must neither let an image through nor tell a stranger about our insides.
            _log.exception("A review failed")
            return refuse(INTERNAL_ERROR), review

    async def _mutate(self, document: Any, uid: str) -> _Answer:
        """Always allow: what is wrong with a pod is for the validating webhook to say."""
        try:
            mutation = await self._deciders.mutator.mutate(parse_review(document))
        except InvalidReview:
            return make_answer(uid, allowed=True)
        except Exception:
            _log.exception("The tags of a pod could not be resolved")
            return make_answer(uid, allowed=True)
        return make_answer(uid, allowed=True, warnings=mutation.warnings, patch=mutation.patch)

    async def _judge_change(self, document: Any, uid: str) -> _Answer:
        try:
            change = parse_change(document)
            # In a thread: to compile expressions takes a library that loads for half a second.
            problems = await asyncio.to_thread(self._deciders.check_change, change)
        except InvalidReview as error:
            self._count(Decision(Outcome.ERROR))
            return make_answer(uid, allowed=False, message=str(error))
        except Exception:
            _log.exception("A change of trust could not be checked")
            self._count(Decision(Outcome.ERROR))
            return make_answer(uid, allowed=False, message="it could not be checked: internal error")
        outcome = Outcome.DENY if problems else Outcome.ALLOW
        self._metrics.trust_changes.labels(change.kind, outcome).inc()
        self._trail.changed(change, problems)
        return make_answer(uid, allowed=not problems, message="; ".join(problems))

    def _count(self, decision: Decision) -> None:
        self._metrics.decisions.labels(decision.outcome, decision.mode).inc()


async def _read(request: web.Request, take: Callable[[int], None]) -> bytes:
    """Read the body, with room for what has come: who announces much and sends nothing takes none of it."""
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.content.iter_any():
                if len(body) + len(chunk) > MAX_BODY_BYTES:
                    raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(body) + len(chunk))
                take(len(chunk))
                body += chunk
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="The body did not arrive in time.\n") from None
    return bytes(body)
