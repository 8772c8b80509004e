"""The program `edgemodel-signer`: puts the parts together, runs them, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.adapters.signer_protocol import KeyTroubleReason
from edgemodel_operator.settings import Settings, SigningCommand
from edgemodel_operator.signer.audit import Audit
from edgemodel_operator.signer.callers import Callers
from edgemodel_operator.signer.keyring import KeyRing, Trouble
from edgemodel_operator.signer.metrics import SignerMetrics
from edgemodel_operator.signer.privacy import keep_memory_private
from edgemodel_operator.signer.server import SignerServer, SigningPolicy
from edgemodel_operator.signing.command_signer import CommandSigner
from edgemodel_operator.signing.errors import KeyLoadError
from edgemodel_operator.signing.keys import Signer, load_public_key
from edgemodel_operator.web.announcement import ConfigMapAnnouncement
from edgemodel_operator.web.certificate_keeper import CertificateKeeper, CertificateNames
from edgemodel_operator.web.probes import serve_probes
from edgemodel_operator.web.program import run_program

_log = logging.getLogger(__name__)


def main() -> None:
    """Run until SIGTERM or SIGINT; exits 0 then, and 2 when the configuration cannot be used."""
    keep_memory_private()
    run_program("edgemodel-signer", serve)


async def serve(settings: Settings, api: KubeApi, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then answer what is under way and return.

    Trouble with a key is an answer, not an end: the program is ready without any, so that it can say which.
    """
    metrics = SignerMetrics()
    certificates = _certificates(settings, api, metrics)
    audit = Audit(api, settings.namespace, settings.pod_name, metrics.events_dropped)
    keys = _keys(settings, api)
    policy = SigningPolicy(
        account=f"system:serviceaccount:{settings.namespace}:{settings.signer.operator_account}",
        repositories=settings.signing.repositories,
    )
    server = SignerServer(keys, Callers(api, time.monotonic), audit, metrics, policy)

    def ready() -> bool:
        return certificates.ready and not stop.is_set()

    async with contextlib.AsyncExitStack() as stack:
        stack.callback(keys.forget)
        await stack.enter_async_context(
            serve_probes(settings.metrics_port, metrics.registry, ready, lambda: True)
        )
        await stack.enter_async_context(server.serve(settings.signer.port, certificates.context))
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(certificates.run()), tasks.create_task(audit.run())]
            await stop.wait()
            _log.info("Asked to stop")
            for task in loops:
                task.cancel()


def _certificates(settings: Settings, api: KubeApi, metrics: SignerMetrics) -> CertificateKeeper:
    signer = settings.signer
    names = CertificateNames(settings.namespace, signer.secret_name, signer.service_name)
    announcement = ConfigMapAnnouncement(
        api, settings.namespace, signer.config_map_name, manager=signer.service_name
    )
    return CertificateKeeper(api, names, announcement, metrics, lambda: datetime.now(UTC))


def _keys(settings: Settings, api: KubeApi) -> KeyRing:
    cluster = Cluster(api, settings.namespace, settings.pod_name)

    async def read(name: str) -> dict[str, bytes] | None:
        return await cluster.get_secret(settings.namespace, name)

    return KeyRing(
        read, settings.namespace, settings.signing.secret_names, _outside(settings.signing.command)
    )


def _outside(command: SigningCommand) -> list[Signer | Trouble]:
    if not command.argv:
        return []
    try:
        return [CommandSigner(command.argv, load_public_key(command.public_key.encode()))]
    except KeyLoadError as error:
        return [Trouble(KeyTroubleReason.INVALID, error.problem, f"signing.command: {error}")]


if __name__ == "__main__":
    main()
