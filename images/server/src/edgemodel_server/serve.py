"""Serving: the loop, the start of the models in the background, and the end without a failed request."""

import asyncio
import errno
import os
import signal
import socket
import sys
from contextlib import suppress

import uvloop

from edgemodel_server.access_log import AccessLog
from edgemodel_server.app import App
from edgemodel_server.cpus import count_usable_cpus
from edgemodel_server.discovery import find_sources
from edgemodel_server.http.connection import Connection
from edgemodel_server.http.endpoint import Endpoint
from edgemodel_server.http.messages import Limits
from edgemodel_server.log import log_error, log_info, log_warning
from edgemodel_server.pacing import Pacer
from edgemodel_server.picture_requests import PictureQueue
from edgemodel_server.served import ServedModel, ServeOptions
from edgemodel_server.server_metrics import add_http
from edgemodel_server.settings import Settings
from edgemodel_server.starting import start_models, unload_idle
from edgemodel_server.workers import Workers

_FINISH_SECONDS = 20.0
"""How long requests under way may take after the drain: both fit in Kubernetes' grace period of 30 s."""

_LAST_LOOK_SECONDS = 0.02
_BACKLOG = 1024


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. A second signal ends at once."""
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
    endpoint = Endpoint(loop, app.handle, Limits(max_body_bytes=settings.max_body_bytes))
    app.add_metrics(lambda page: add_http(page, endpoint))
    if settings.access_log is not None:
        endpoint.access_log = AccessLog(loop, settings.access_log)
    try:
        listener = open_listener(settings.host, settings.http_port)
    except OSError as error:
        log_error("cannot listen", host=settings.host, port=settings.http_port, error=str(error))
        return 1
    server = await loop.create_server(lambda: Connection(endpoint), sock=listener, backlog=_BACKLOG)
    port = server.sockets[0].getsockname()[1]
    log_info(
        "listening",
        host=settings.host or "all",
        port=port,
        threads=threads,
        models=[one.name for one in served],
    )
    endpoint.start_sweeping()
    start_models(loop, settings, found.sources, served)
    if settings.idle_unload:
        unload_idle(loop, served)
    await signals.first.wait()
    await _drain(settings, app, endpoint, server, signals)
    return 0


def open_listener(host: str | None, port: int) -> socket.socket:
    """Return a listening socket; for host None on all addresses, IPv4 only where the machine has no IPv6."""
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return socket.create_server(("", port), backlog=_BACKLOG)


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
    return Pacer(settings.max_cpu_percent / 100 * count_usable_cpus())


async def _drain(
    settings: Settings, app: App, endpoint: Endpoint, server: asyncio.Server, signals: _Signals
) -> None:
    """End without a failed request.

    1. Say "not ready", so that new requests are sent elsewhere; that news needs time to spread.
    2. Until then answer everything, on new connections, too; each answer tells its client to connect anew.
    3. Stop listening, close what is idle, and finish what is under way.
    """
    app.draining = endpoint.draining = True
    log_info("draining", seconds=settings.drain_seconds)
    if any(model.ready for model in app.models):
        await _wait(signals.second, settings.drain_seconds)
    await asyncio.sleep(_LAST_LOOK_SECONDS)  # connections that the kernel has accepted, but we have not
    server.close()
    await asyncio.sleep(_LAST_LOOK_SECONDS)  # requests on them that we have not read
    cut = await endpoint.finish(0.0 if signals.second.is_set() else _FINISH_SECONDS)
    endpoint.stop_sweeping()
    if endpoint.access_log is not None:
        endpoint.access_log.flush()
    if cut:
        log_warning("connections cut", count=cut)
    log_info("stopped")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
