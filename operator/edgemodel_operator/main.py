"""The operator: settings → adapters → ports → queue and watches. The only place that wires them together."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import kopf

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.image_remover import ImageRemover
from edgemodel_operator.adapters.image_signer import ImageSigner
from edgemodel_operator.adapters.jobs import Jobs
from edgemodel_operator.adapters.kube import KubeApi, KubeError, connect
from edgemodel_operator.adapters.lease import Lease, LeaseLost
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.adapters.pods import ModelPods
from edgemodel_operator.adapters.policy_status import PolicyObjects, selector_text
from edgemodel_operator.adapters.policy_verifier import PolicyVerifier
from edgemodel_operator.adapters.registries import ImageVerifier, Registries
from edgemodel_operator.adapters.registry_access import RegistryAccess
from edgemodel_operator.adapters.remote_signer import RemoteKeys, SignerAddress
from edgemodel_operator.adapters.running_images import RunningImages
from edgemodel_operator.build.jobs.runner import JobRunner
from edgemodel_operator.build.placement import PlacedBuilder
from edgemodel_operator.build.supplier import WorkerBuilder
from edgemodel_operator.handlers import Wakeups, make_registry, make_settings
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.reconcile.audit import Auditor
from edgemodel_operator.reconcile.audit_answers import AuditAnswers
from edgemodel_operator.reconcile.garbage import ImageSweeper
from edgemodel_operator.reconcile.outcome import Outcome
from edgemodel_operator.reconcile.ports import Builder, Ports
from edgemodel_operator.reconcile.queue import Key, Queue
from edgemodel_operator.reconcile.reconcile import reconcile_safely
from edgemodel_operator.reconcile.renewal import Renewal
from edgemodel_operator.reconcile.supplies import Supplies
from edgemodel_operator.reconcile.verdicts import RememberingVerifier
from edgemodel_operator.settings import InvalidSettings, Settings, load_settings
from edgemodel_operator.web.logs import configure_logging
from edgemodel_operator.web.probes import serve_probes

log = logging.getLogger(__name__)

LEASE_NAME = "edgemodel-operator"
CLASS_RETRY_SECONDS = 5


def now() -> datetime:
    """Give the time of the wall clock, in UTC."""
    return datetime.now(UTC)


def main() -> None:
    """Run the operator until SIGTERM."""
    try:
        settings = load_settings()
    except InvalidSettings as error:
        sys.exit(f"edgemodel-operator: {error}")
    configure_logging(settings.log_level)
    # kopf tells of every event that a handler took; the passes tell what came of them.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        asyncio.run(run(settings))
    except* LeaseLost as errors:
        log.critical("stopping: %s", errors.exceptions[0])
        sys.exit(1)


async def run(settings: Settings) -> None:
    """Serve probes, hold the Lease, reconcile."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    operator = Operator(settings, stop)
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(connect())
        registry_session = await stack.enter_async_context(
            new_session(authorities=settings.registries.certificate_authorities)
        )
        pod_session = await stack.enter_async_context(aiohttp.ClientSession())
        await stack.enter_async_context(
            serve_probes(
                settings.metrics_port, operator.metrics.registry, operator.is_ready, operator.is_alive
            )
        )
        work = asyncio.create_task(operator.work(kube, registry_session, pod_session))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        operator.begin_stop()
        stopped.cancel()
        if not work.done():
            work.cancel()
        await asyncio.gather(work, return_exceptions=stop.is_set())


class Background(Protocol):
    """What works on when the pass that began it has ended."""

    async def close(self) -> None:
        """Stop all of it, and wait until it has ended."""
        ...


async def hold_while(
    lease: Lease, works: Sequence[Coroutine[Any, Any, None]], background: Sequence[Background]
) -> None:
    """Work while the Lease is held; it is given back when nothing works any more, and not before.

    Raises what ends a part of the work, and LeaseLost, as an ExceptionGroup.
    """
    try:
        async with asyncio.TaskGroup() as holding:
            keeping = holding.create_task(lease.keep())
            try:
                async with asyncio.TaskGroup() as group:
                    for work in works:
                        group.create_task(work)
            finally:
                await asyncio.gather(*(one.close() for one in background))
                keeping.cancel()
    finally:
        await asyncio.shield(lease.release())


class Operator:
    """The running parts."""

    def __init__(self, settings: Settings, stop: asyncio.Event) -> None:
        self._settings = settings
        self._stop = stop
        self.metrics = Metrics()
        self.queue = Queue()
        self._watching = asyncio.Event()
        self._stopping = False

    def is_ready(self) -> bool:
        """Say whether the Lease is held and the watches run."""
        return self._watching.is_set() and not self._stopping

    def is_alive(self) -> bool:
        """Say that the event loop turns; a dead watch ends the process by itself."""
        return True

    def begin_stop(self) -> None:
        """Say not ready from now on."""
        self._stopping = True

    async def work(
        self, kube: KubeApi, registry_session: aiohttp.ClientSession, pod_session: aiohttp.ClientSession
    ) -> None:
        """Hold the Lease and reconcile until cancelled."""
        settings = self._settings
        holder = settings.pod_name or socket.gethostname()
        lease = Lease(kube, settings.namespace, LEASE_NAME, holder, now)
        await lease.acquire()
        cluster = Cluster(kube, settings.namespace, holder)
        authorities = AuthorityStore(kube, settings.namespace, time.monotonic)
        builder = self._make_builder(kube)
        running = RunningImages(kube)
        auditor = self._make_auditor(kube, holder, running, authorities, registry_session)
        running.changed = auditor.wake
        signer = self._make_signer(cluster, registry_session, pod_session)
        ports, supplies = self._wire(cluster, authorities, builder, signer, registry_session, pod_session)

        async def one_pass(key: Key) -> tuple[Outcome, float | None]:
            return await reconcile_safely(key, ports, supplies)

        works = (
            self._apply_classes(cluster),
            self.queue.run(one_pass),
            Renewal(cluster, signer).run(),
            running.run(),
            auditor.run(),
            self._watch(auditor),
        )
        await hold_while(lease, works, (supplies, ports.sweeper))

    def _make_builder(self, kube: KubeApi) -> Builder:
        settings, registries = self._settings, self._settings.registries
        worker = WorkerBuilder(
            settings.sources,
            registries.plain_http,
            registries.allowed_upload_hosts,
            settings.builds,
            registries.certificate_authorities,
            settings.build_disk_bytes,
        )
        # An operator that stops leaves its Jobs to the next one.
        runner = JobRunner(Jobs(kube), settings.builds, is_stopping=lambda: self._stopping)
        return PlacedBuilder(worker, runner, settings.builds)

    def _make_auditor(
        self,
        kube: KubeApi,
        holder: str,
        running: RunningImages,
        authorities: AuthorityStore,
        registry_session: aiohttp.ClientSession,
    ) -> Auditor:
        settings, registries = self._settings, self._settings.registries
        guarded = selector_text(settings.audit.namespace_selector.to_raw())
        access = RegistryAccess(
            registry_session,
            registries.plain_http,
            (kube, settings.namespace, registries.credentials_secret),
            clock=time.monotonic,
        )
        return Auditor(
            PolicyObjects(kube, settings.namespace, holder, guarded),
            running,
            AuditAnswers(PolicyVerifier(authorities), access, time.monotonic),
            self.metrics.audit,
            clock=now,
            interval_seconds=settings.audit.interval_seconds,
        )

    def _wire(
        self,
        cluster: Cluster,
        authorities: AuthorityStore,
        builder: Builder,
        signer: ImageSigner,
        registry_session: aiohttp.ClientSession,
        pod_session: aiohttp.ClientSession,
    ) -> tuple[Ports, Supplies]:
        settings = self._settings
        registries = self._registries(registry_session)
        verifier = ImageVerifier(authorities, registries)

        def wake(namespace: str, name: str) -> None:
            self.queue.wake((namespace, name))

        ports = Ports(
            cluster=cluster,
            pods=ModelPods(pod_session),
            verifier=RememberingVerifier(verifier, self.metrics),
            sweeper=ImageSweeper(cluster, ImageRemover(registries), self.metrics, clock=now, wake=wake),
            metrics=self.metrics,
            clock=now,
            runtimes=settings.runtimes,
        )
        supplies = Supplies(
            cluster,
            builder,
            signer,
            self.metrics,
            clock=now,
            wake=wake,
            concurrency=settings.max_concurrent_builds,
            job_concurrency=settings.builds.max_concurrent_jobs,
        )
        return ports, supplies

    def _make_signer(
        self, cluster: Cluster, registry_session: aiohttp.ClientSession, pod_session: aiohttp.ClientSession
    ) -> ImageSigner:
        keys = RemoteKeys(cluster, pod_session, _signer_address(self._settings))
        return ImageSigner(keys, self._registries(registry_session))

    def _registries(self, session: aiohttp.ClientSession) -> Registries:
        settings = self._settings.registries
        return Registries(session, settings.plain_http, settings.allowed_upload_hosts)

    async def _apply_classes(self, cluster: Cluster) -> None:
        """Apply the AcceleratorClasses of the configuration; the API may not serve the kind for a moment."""
        for item in self._settings.accelerator_classes:
            while True:
                try:
                    await cluster.apply_class(item.name, item.spec)
                    break
                except KubeError as error:
                    log.warning("AcceleratorClass %s could not be applied: %s", item.name, error)
                    await asyncio.sleep(CLASS_RETRY_SECONDS)

    async def _watch(self, auditor: Auditor) -> None:
        """Watch until asked to stop: kopf takes the signals over, and returns when one comes."""
        wakeups = Wakeups(self.queue, audit=auditor.wake)
        self.metrics.models.set_function(lambda: len(wakeups.models))
        await kopf.operator(
            registry=make_registry(),
            settings=make_settings(),
            memo=wakeups,
            standalone=True,
            clusterwide=True,
            ready_flag=self._watching,
            stop_flag=self._stop,
        )
        self._stop.set()


def _signer_address(settings: Settings) -> SignerAddress:
    signer = settings.signer
    host = f"{signer.service_name}.{settings.namespace}.svc"
    return SignerAddress(
        url=f"https://{host}",
        host=host,
        namespace=settings.namespace,
        config_map=signer.config_map_name,
        token_file=Path(signer.token_file),
    )


if __name__ == "__main__":
    main()
