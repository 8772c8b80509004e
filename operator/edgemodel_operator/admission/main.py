"""The program `edgemodel-admission`: puts the parts together, runs them, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.adapters.policy_check import check_policy
from edgemodel_operator.adapters.policy_verifier import PolicyVerifier
from edgemodel_operator.adapters.registry_access import RegistryAccess
from edgemodel_operator.admission.audit_trail import AuditTrail
from edgemodel_operator.admission.events import EventRecorder
from edgemodel_operator.admission.judge import Judge, Sources
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.policies import ExceptionWatch, PolicyWatch
from edgemodel_operator.admission.server import AdmissionServer, Deciders
from edgemodel_operator.admission.tags import RegistryTags, TagMutator
from edgemodel_operator.admission.trust_objects import check_change
from edgemodel_operator.admission.verdict_book import VerdictBook
from edgemodel_operator.admission.verdict_cache import VerdictCache
from edgemodel_operator.admission.verdict_store import VerdictStore
from edgemodel_operator.admission.verifier import VERIFY_SECONDS, ImageVerifier
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.settings import Settings
from edgemodel_operator.web.announcement import WebhookAnnouncement
from edgemodel_operator.web.certificate_keeper import CertificateKeeper, CertificateNames
from edgemodel_operator.web.probes import serve_probes
from edgemodel_operator.web.program import run_program

VERDICTS_SECRET = "edgemodel-admission-verdicts"  # noqa: S105 - the name of a Secret, not a secret
DRAIN_SECONDS = 8.0
"""How long requests are still answered after SIGTERM, while every API server learns that we are leaving."""

_log = logging.getLogger(__name__)


def main() -> None:
    """Run until SIGTERM or SIGINT; exits 0 then, and 2 when the configuration cannot be used."""
    run_program("edgemodel-admission", serve)


async def serve(
    settings: Settings, api: KubeApi, stop: asyncio.Event, *, drain_seconds: float = DRAIN_SECONDS
) -> None:
    """Serve until `stop` is set, then answer for `drain_seconds` more and return."""
    metrics = AdmissionMetrics()
    certificates = _certificates(settings, api, metrics)
    policies = PolicyWatch(api, metrics)
    exceptions = ExceptionWatch(api, settings.namespace, metrics)
    events = EventRecorder(api, settings.pod_name, metrics, clock=time.monotonic, now=_now)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            new_session(authorities=settings.registries.certificate_authorities)
        )
        registries = RegistryAccess(
            session,
            settings.registries.plain_http,
            (api, settings.namespace, settings.registries.credentials_secret),
            clock=time.monotonic,
        )
        cache = VerdictCache(VerdictBook(), time.time, time.monotonic)
        checks = PolicyVerifier(
            AuthorityStore(api, settings.namespace, time.monotonic), verify_seconds=VERIFY_SECONDS
        )
        verifier = ImageVerifier(checks, registries, cache, metrics)
        stack.push_async_callback(verifier.close)
        verdicts = VerdictStore(api, _verdicts_path(settings), cache.book, metrics, time.time)
        stack.push_async_callback(verdicts.save_at_end)
        tags = RegistryTags(registries)
        deciders = Deciders(
            Judge(Sources(policies, exceptions, _now), verifier, tags),
            TagMutator(policies, tags, metrics),
            lambda change: check_change(change, settings.namespace, check_policy, _now()),
        )
        server = AdmissionServer(deciders, AuditTrail(events), metrics)

        def ready() -> bool:
            return certificates.ready and policies.synced and verdicts.loaded and not server.draining

        await stack.enter_async_context(
            serve_probes(settings.metrics_port, metrics.registry, ready, lambda: True)
        )
        await stack.enter_async_context(server.serve(settings.admission.port, certificates.context))
        async with asyncio.TaskGroup() as tasks:
            loops = [
                tasks.create_task(one)
                for one in (
                    certificates.run(),
                    policies.run(),
                    exceptions.run(),
                    events.run(),
                    verdicts.run(lambda: verifier.live_groups(policies.policies)),
                )
            ]
            await stop.wait()
            _log.info("Asked to stop: answering for %g s more", drain_seconds)
            server.draining = True
            await asyncio.sleep(drain_seconds)
            for task in loops:
                task.cancel()


def _certificates(settings: Settings, api: KubeApi, metrics: AdmissionMetrics) -> CertificateKeeper:
    names = CertificateNames(
        namespace=settings.namespace,
        secret=settings.admission.secret_name,
        service=settings.admission.service_name,
    )
    service = (settings.namespace, settings.admission.service_name)
    announcement = WebhookAnnouncement(api, settings.admission.webhook_name, service)
    return CertificateKeeper(api, names, announcement, metrics, _now)


def _verdicts_path(settings: Settings) -> str:
    return f"/api/v1/namespaces/{settings.namespace}/secrets/{VERDICTS_SECRET}"


def _now() -> datetime:
    return datetime.now(UTC)
