"""Serving: the loop, the start of the models in the background, and the end without a failed request."""

import asyncio
import os
import signal
import sys
from contextlib import suppress

import uvloop

from edgemodel_server.app import App
from edgemodel_server.cpus import count_usable_cpus, measure_usable_cpus
from edgemodel_server.discovery import find_sources
from edgemodel_server.log import log_error, log_info, log_warning
from edgemodel_server.pacing import Pacer
from edgemodel_server.picture_requests import PictureQueue
from edgemodel_server.ports import Ports
from edgemodel_server.served import ServedModel, ServeOptions
from edgemodel_server.settings import Settings
from edgemodel_server.starting import start_models, unload_idle
from edgemodel_server.workers import Workers

_FINISH_SECONDS = 20.0
"""How long requests under way may take after the drain: both fit in Kubernetes' grace period of 30 s."""

_LAST_LOOK_SECONDS = 0.02
_SWITCH_SECONDS = 0.001
"""How long a worker's thread may keep the loop from a probe; Python's own 5 ms are long for that."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. A second signal ends at once."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_serve(settings))
        # Threads may still be inside a runtime. An ordinary exit would unwind them through its C++ frames,
        # which aborts the process; and nothing is left to be cleaned up.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    signals = _Signals(loop)
    found = find_sources(settings)
    threads = settings.threads or count_usable_cpus()
    pacer = _make_pacer(settings)
    workers = Workers(loop, threads, pacer)
    options = ServeOptions(
        max_queue=settings.max_queue,
        max_delay=settings.max_delay,
        idle_unload=settings.idle_unload,
        inline=pacer is None,
    )
    served = [ServedModel(source.name, source.version, workers, options) for source in found.sources]
    for failure in found.failures:
        log_error("model not ready", reason=failure.reason, message=failure.message)
    pictures = PictureQueue(workers, settings.max_queue, settings.max_picture_pixels)
    app = App(served, [(failure.reason, failure.message) for failure in found.failures], pictures)
    ports = Ports(loop, settings, app)
    if not await ports.open():
        return 1
    log_info(
        "listening",
        host=settings.host or "all",
        port=ports.http_port,
        grpc_port=ports.grpc_port,
        threads=threads,
        models=[one.name for one in served],
    )
    start_models(loop, settings, found.sources, served)
    if settings.idle_unload:
        unload_idle(loop, served)
    await signals.first.wait()
    await _drain(settings, app, ports, signals)
    return 0


class _Signals:
    """SIGTERM and SIGINT, counted: the first asks for an orderly end, the second for an end now."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._note)

    def _note(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def _make_pacer(settings: Settings) -> Pacer | None:
    if settings.max_cpu_percent is None:
        return None
    return Pacer(settings.max_cpu_percent / 100 * measure_usable_cpus())


async def _drain(settings: Settings, app: App, ports: Ports, signals: _Signals) -> None:
    """End without a failed request.

    1. Say "not ready", so that new requests are sent elsewhere; that news needs time to spread.
    2. Until then answer everything, on new connections, too; each answer tells its client to connect anew.
    3. Stop listening, close what is idle, and finish what is under way.
    """
    app.draining = True
    ports.announce_end()
    log_info("draining", seconds=settings.drain_seconds)
    if any(model.ready for model in app.models):
        await _wait(signals.second, settings.drain_seconds)
    await asyncio.sleep(_LAST_LOOK_SECONDS)  # connections that the kernel has accepted, but we have not
    ports.stop_listening()
    await asyncio.sleep(_LAST_LOOK_SECONDS)  # requests on them that we have not read
    cut = await ports.finish(0.0 if signals.second.is_set() else _FINISH_SECONDS)
    if cut:
        log_warning("connections cut", count=cut)
    log_info("stopped")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
