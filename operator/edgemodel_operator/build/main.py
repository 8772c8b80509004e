"""The build worker: reads one request, builds, and answers on standard output.

It is a process of its own so that a model of any size, a crash or a leak stays outside the operator, and so
that a build can be cancelled by killing it. Protocol: `protocol`. As a child of the operator it reads the
request from standard input; in a Job (`--mounts`) it finds request and Secrets as files, and leaves its
answer in the termination message, too.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path

from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.jobs.answer import write_note
from edgemodel_operator.build.jobs.mounts import REQUEST, complete_request
from edgemodel_operator.build.jobs.plan import JobStep
from edgemodel_operator.build.limits import die_with_parent, limit_soft, renounce_privileges
from edgemodel_operator.build.pipeline import build_image
from edgemodel_operator.build.protocol import (
    MAX_REQUEST_BYTES,
    InvalidMessage,
    Message,
    decode_request,
    encode_message,
)
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import BuildRequest, BuildResult

MEMORY_BYTES = 2 * 1024**3
"""Address space of the worker: far above what it needs (streams and thread stacks), far below a node."""

Maker = Callable[[BuildRequest, Path, Reporter], Coroutine[None, None, BuildResult]]
NOTE = Path("/dev/termination-log")
"""Where the kubelet looks for the last word of a container."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_log = logging.getLogger("edgemodel.build")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one build; exit status 0 after a result, 1 after a failure."""
    options = _parse(arguments)
    _prepare_process(options)
    say = _take_stdout()
    try:
        request = _read_request(options.mounts)
        outcome = _build(_choose(request, JobStep(options.make)), request, options.work, say)
    except InvalidMessage as error:
        outcome = BuildFailure(reason=Reason.INVALID_REQUEST, message=str(error))
    except BuildError as error:
        outcome = error.failure
    say(outcome)
    if options.mounts:
        with suppress(OSError):  # outside a container there is no such file
            options.note.write_bytes(write_note(outcome))
    return 0 if isinstance(outcome, BuildResult) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgemodel-build", description="Build one model image.")
    parser.add_argument("--work", type=Path, help="an empty folder for temporary files")
    parser.add_argument("--parent", type=int, help="end when this process, our parent, ends")
    parser.add_argument("--mounts", type=Path, help="the folder in which a Job finds request and Secrets")
    parser.add_argument("--make", choices=list(JobStep), default=JobStep.IMAGE, help="what to make")
    parser.add_argument("--note", type=Path, default=NOTE, help="where a Job leaves its answer")
    return parser.parse_args(arguments)


def _prepare_process(options: argparse.Namespace) -> None:
    if options.parent:
        die_with_parent(options.parent)
    if options.mounts:
        # The first process of a container has no default action for signals: it would outlive its deletion.
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    else:
        # In a Job the memory limit of the container stands for this one, which exporters would not like.
        limit_soft(resource.RLIMIT_AS, MEMORY_BYTES)
    renounce_privileges()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def _read_request(mounts: Path | None) -> BuildRequest:
    if mounts is None:
        return decode_request(sys.stdin.buffer.readline(MAX_REQUEST_BYTES))
    return complete_request(decode_request((mounts / REQUEST).read_bytes()), mounts)


def _take_stdout() -> Callable[[Message], None]:
    """Keep standard output for the protocol: whatever a library prints goes to standard error."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    out = os.fdopen(descriptor, "wb", buffering=0)

    def answer(message: Message) -> None:
        out.write(encode_message(message))

    return answer


def _choose(request: BuildRequest, step: JobStep) -> Maker:
    """Give what does the work; only that is imported: what speaks to engines costs as much as a build."""
    if request.adoption is not None:
        from edgemodel_operator.build.adoption import adopt_image  # noqa: PLC0415

        return adopt_image
    if step is JobStep.RUNTIME:
        from edgemodel_operator.build.made_runtime import make_runtime  # noqa: PLC0415

        return make_runtime
    return build_image


def _build(
    make: Maker, request: BuildRequest, work: Path | None, answer: Callable[[Message], None]
) -> BuildResult | BuildFailure:
    reporter = Reporter(answer)
    try:
        if work is not None:
            return asyncio.run(make(request, work, reporter))
        with tempfile.TemporaryDirectory(prefix="edgemodel-build-") as folder:
            return asyncio.run(make(request, Path(folder), reporter))
    except BuildError as error:
        return error.failure
    except OSError as error:
        if error.errno in _NO_SPACE:
            return BuildFailure(reason=Reason.NO_SPACE, message="The disk for temporary files is full.")
        return _unexpected(error)
    except Exception as error:  # the last line of the protocol must always be sent
        return _unexpected(error)


def _unexpected(error: Exception) -> BuildFailure:
    _log.error("The build failed in a way that was not foreseen.", exc_info=error)
    return BuildFailure(
        reason=Reason.INTERNAL_ERROR,
        message=f"The build failed in a way that was not foreseen ({type(error).__name__}); see the log.",
    )
