"""The program `edgemodel-admission`: puts the parts together, runs them, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from datetime import UTC, datetime

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.kube import KubeApi, NoCluster, connect
from edgemodel_operator.adapters.registry_access import RegistryAccess
from edgemodel_operator.admission.judge import Judge
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.policies import PolicyWatch
from edgemodel_operator.admission.server import AdmissionServer
from edgemodel_operator.admission.verifier import ImageVerifier
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.settings import InvalidSettings, Settings, load_settings
from edgemodel_operator.web.announcement import WebhookAnnouncement
from edgemodel_operator.web.certificate_keeper import CertificateKeeper, CertificateNames
from edgemodel_operator.web.logs import configure_logging
from edgemodel_operator.web.probes import serve_probes

DRAIN_SECONDS = 8.0
"""How long requests are still answered after SIGTERM, while every API server learns that we are leaving."""

_log = logging.getLogger(__name__)


def main() -> None:
    """Run until SIGTERM or SIGINT; exits 0 then, and 2 when the configuration cannot be used."""
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        asyncio.run(_main(settings))
    except (InvalidSettings, NoCluster) as error:
        sys.stderr.write(f"edgemodel-admission: {error}\n")
        sys.exit(2)


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with connect() as api:
        await serve(settings, api, stop)


async def serve(
    settings: Settings, api: KubeApi, stop: asyncio.Event, *, drain_seconds: float = DRAIN_SECONDS
) -> None:
    """Serve until `stop` is set, then answer for `drain_seconds` more and return."""
    metrics = AdmissionMetrics()
    names = CertificateNames(
        namespace=settings.namespace,
        secret=settings.admission.secret_name,
        service=settings.admission.service_name,
    )
    announcement = WebhookAnnouncement(api, settings.admission.webhook_name, (names.namespace, names.service))
    certificates = CertificateKeeper(api, names, announcement, metrics, lambda: datetime.now(UTC))
    policies = PolicyWatch(api, metrics)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            new_session(authorities=settings.registries.certificate_authorities)
        )
        verifier = ImageVerifier(
            AuthorityStore(api, settings.namespace, time.monotonic),
            RegistryAccess(
                session,
                settings.registries.plain_http,
                _credentials_secret(settings, api),
                clock=time.monotonic,
            ),
            metrics,
        )
        stack.push_async_callback(verifier.close)
        server = AdmissionServer(Judge(policies, verifier), metrics)

        def ready() -> bool:
            return certificates.ready and policies.synced and not server.draining

        await stack.enter_async_context(
            serve_probes(settings.metrics_port, metrics.registry, ready, lambda: True)
        )
        await stack.enter_async_context(server.serve(settings.admission.port, certificates.context))
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(certificates.run()), tasks.create_task(policies.run())]
            await stop.wait()
            _log.info("Asked to stop: answering for %g s more", drain_seconds)
            server.draining = True
            await asyncio.sleep(drain_seconds)
            for task in loops:
                task.cancel()


def _credentials_secret(settings: Settings, api: KubeApi) -> tuple[KubeApi, str, str] | None:
    name = settings.registries.credentials_secret
    return (api, settings.namespace, name) if name else None
