"""HTTPS in front of the judge: one request in, one answer out, a refusal for everything that goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from edgemodel_operator.admission.judge import Decision, Judge
from edgemodel_operator.admission.metrics import AdmissionMetrics, Outcome
from edgemodel_operator.admission.review import InvalidReview, Review, make_answer, parse_review, request_uid
from edgemodel_operator.api.trustpolicy import Mode

PATH = "/validate"
MAX_BODY_BYTES = 8 * 1024 * 1024
"""An object may have 3 MiB, and an update carries two of them in one review."""
KEEP_ALIVE_S = 120.0
"""Longer than the 90 s after which the API server drops an idle connection: it, not we, must close it."""
READ_SECONDS = 5.0
MAX_LOGGED_IMAGES = 32

_log = logging.getLogger(__name__)


class AdmissionServer:
    """Answers reviews. Once `draining`, each answer asks the API server to connect anew, elsewhere."""

    def __init__(self, judge: Judge, metrics: AdmissionMetrics) -> None:
        self.draining = False
        self._judge = judge
        self._metrics = metrics

    @asynccontextmanager
    async def serve(
        self, port: int, context: ssl.SSLContext | None, *, host: str | None = None
    ) -> AsyncGenerator[int, None]:
        """Serve while the block runs; yields the port. Requests under way get to finish at the end."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_post(PATH, self._validate)
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

    async def _validate(self, request: web.Request) -> web.Response:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await request.read()
            response = await self._answer(body)
        except web.HTTPRequestEntityTooLarge:
            self._count(Decision(Outcome.ERROR))
            raise
        except TimeoutError:
            self._count(Decision(Outcome.ERROR))
            return web.Response(status=408, text="The body did not arrive in time.\n")
        finally:
            self._metrics.review_seconds.observe(time.perf_counter() - began)
        if self.draining:
            response.force_close()
        return response

    async def _answer(self, body: bytes) -> web.Response:
        try:
            document = json.loads(body)
            uid = request_uid(document)
        except (ValueError, RecursionError) as error:
            # Without an identifier no valid answer exists; the API server takes this for a denial.
            self._count(Decision(Outcome.ERROR))
            _log.warning("A request that is no AdmissionReview was refused")
            sentence = str(error) if isinstance(error, InvalidReview) else "The body is not JSON."
            return web.Response(status=400, text=f"{sentence}\n")
        decision, review = await self._decide(document)
        self._count(decision)
        self._log_decision(decision, review, uid)
        answer = make_answer(
            uid, allowed=decision.allowed, message=decision.message, warnings=decision.warnings
        )
        return web.json_response(answer)

    async def _decide(self, document: Any) -> tuple[Decision, Review | None]:
        review: Review | None = None
        try:
            review = parse_review(document)
            return await self._judge.decide(review), review
        except InvalidReview as error:
            return Decision(Outcome.ERROR, refusals=(str(error),)), review
        except asyncio.CancelledError:
            raise
        except Exception:
            # A defect of ours must neither let an image through nor tell a stranger about our insides.
            _log.exception("A review failed")
            sentence = "the images could not be verified because of an internal error"
            return Decision(Outcome.ERROR, refusals=(sentence,)), review

    def _count(self, decision: Decision) -> None:
        self._metrics.decisions.labels(decision.outcome, decision.mode).inc()

    def _log_decision(self, decision: Decision, review: Review | None, uid: str) -> None:
        if decision.outcome is Outcome.ALLOW:
            return
        fields: dict[str, Any] = {
            "uid": uid,
            "decision": decision.outcome,
            "mode": decision.mode,
            "reasons": [*decision.refusals, *decision.warnings],
        }
        if review is not None:
            fields |= {
                "user": review.user,
                "operation": review.operation,
                "object": review.subject,
                "namespace": review.namespace,
                "dryRun": review.dry_run,
                "images": [use.image for use in review.images[:MAX_LOGGED_IMAGES]],
            }
        audited = decision.mode is Mode.AUDIT
        _log.warning("Admitted in Audit mode" if audited else "Denied", extra=fields)
