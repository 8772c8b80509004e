"""Serving: the loop, the start of the models in the background, and the end without a failed request."""

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import uvloop

from edgemodel_server.app import App
from edgemodel_server.check import make_checks
from edgemodel_server.cpus import count_usable_cpus
from edgemodel_server.discovery import find_sources
from edgemodel_server.errors import Reason, StartError
from edgemodel_server.http.connection import Connection
from edgemodel_server.http.endpoint import Endpoint
from edgemodel_server.http.messages import Limits
from edgemodel_server.log import log_error, log_exception, log_info, log_warning
from edgemodel_server.manifest import Source
from edgemodel_server.served import ServedModel
from edgemodel_server.server_metrics import add_http
from edgemodel_server.settings import Settings
from edgemodel_server.startup import Prepared, prepare
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
    workers = Workers(loop, threads)
    served = [
        ServedModel(source.name, source.version, workers, settings.max_queue) for source in found.sources
    ]
    for failure in found.failures:
        log_error("model not ready", reason=failure.reason, message=failure.message)
    app = App(served, [(failure.reason, failure.message) for failure in found.failures])
    endpoint = Endpoint(loop, app.handle, Limits(max_body_bytes=settings.max_body_bytes))
    app.add_metrics(lambda page: add_http(page, endpoint))
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
    _start_models(loop, settings, found.sources, served)
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


def _start_models(
    loop: asyncio.AbstractEventLoop,
    settings: Settings,
    sources: Sequence[Source],
    served: Sequence[ServedModel],
) -> None:
    """Take the models through their checks in a thread: the loop goes on answering probes."""

    def report(model: ServedModel, outcome: Prepared | StartError) -> None:
        _report_start(model, outcome)
        if all(one.started for one in served):
            gc.collect()
            gc.freeze()  # what exists now stays: the collector need not look at it again

    def start_all() -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is about to exit
            for source, model in zip(sources, served, strict=True):
                loop.call_soon_threadsafe(report, model, _prepare_safely(source, settings))

    threading.Thread(target=start_all, name="start", daemon=True).start()


def _prepare_safely(source: Source, settings: Settings) -> Prepared | StartError:
    try:
        return prepare(source, make_checks(settings, source.name))
    except StartError as error:
        return error
    except Exception as error:
        log_exception("model start failed", model=source.name)
        return StartError(Reason.LOAD_FAILED, f"{type(error).__name__}: {error}")


def _report_start(model: ServedModel, outcome: Prepared | StartError) -> None:
    if isinstance(outcome, StartError):
        model.fail(outcome)
        log_error("model not ready", model=model.name, reason=outcome.reason, message=outcome.message)
    else:
        model.start(outcome)
        log_info("model ready", model=model.name, version=model.version, **outcome.facts())


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
    if cut:
        log_warning("connections cut", count=cut)
    log_info("stopped")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
