"""Loading models in the background: all of them at the start, and one again when it was unloaded."""

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic

from edgemodel_server.check import make_checks
from edgemodel_server.errors import Reason, StartError
from edgemodel_server.log import log_error, log_exception, log_info
from edgemodel_server.manifest import Source
from edgemodel_server.served import ServedModel
from edgemodel_server.settings import Settings
from edgemodel_server.startup import Prepared, prepare
from edgemodel_server.unload import give_memory_back

_UNLOAD_LOOK_SECONDS = 1.0
_COLLECT_AFTER = 10_000


def start_models(
    loop: asyncio.AbstractEventLoop,
    settings: Settings,
    sources: Sequence[Source],
    served: Sequence[ServedModel],
) -> None:
    """Take the models through their checks in a thread: the loop goes on answering probes."""

    def report(model: ServedModel, outcome: Prepared | StartError) -> None:
        _report_start(model, outcome)
        if all(one.started for one in served) and not settings.idle_unload:
            give_memory_back()
            gc.freeze()  # what exists now stays: the collector need not look at it again
            gc.set_threshold(_COLLECT_AFTER)  # requests leave no cycles behind

    pairs = list(zip(sources, served, strict=True))
    for source, model in pairs:
        # All checks again: the files may have changed meanwhile.
        model.reload = partial(_load_in_thread, loop, settings, [(source, model)], _report_start)
    _load_in_thread(loop, settings, pairs, report)


def unload_idle(loop: asyncio.AbstractEventLoop, served: Sequence[ServedModel]) -> None:
    """Unload, from now on, what nobody has asked for long enough."""
    now = monotonic()
    for model in served:
        if model.unload_if_idle(now):
            log_info("model unloaded", model=model.name)
    loop.call_later(_UNLOAD_LOOK_SECONDS, unload_idle, loop, served)


def _load_in_thread(
    loop: asyncio.AbstractEventLoop,
    settings: Settings,
    pairs: Sequence[tuple[Source, ServedModel]],
    report: Callable[[ServedModel, Prepared | StartError], None],
) -> None:
    """Load models one after the other, and report each on the loop's thread."""

    def load() -> None:
        for source, model in pairs:
            outcome = _prepare_safely(source, settings)
            with suppress(RuntimeError):  # the loop is closed: the process is about to exit
                loop.call_soon_threadsafe(report, model, outcome)

    try:
        threading.Thread(target=load, name="load", daemon=True).start()
    except RuntimeError as error:  # no memory for its stack
        for _, model in pairs:
            loop.call_soon(report, model, StartError(Reason.LOAD_FAILED, str(error)))


def _prepare_safely(source: Source, settings: Settings) -> Prepared | StartError:
    try:
        return prepare(source, make_checks(settings, source))
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
