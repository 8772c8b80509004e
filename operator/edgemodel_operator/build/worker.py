"""The operator's side of a build: start the worker, feed it, listen to it, and never leave it behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgemodel_operator.build.environment import child_environment
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason, fail
from edgemodel_operator.build.protocol import MAX_LINE_BYTES, InvalidMessage, decode_message, encode_request
from edgemodel_operator.build.request import BuildRequest, BuildResult, Progress
from edgemodel_operator.build.room import within_room
from edgemodel_operator.build.workdir import work_folder

DEFAULT_TIMEOUT = 3600.0
"""Seconds after which a build is killed; its single steps have shorter limits of their own."""

_log = logging.getLogger("edgemodel.build")


def ignore_progress(progress: Progress) -> None:
    """Take progress and do nothing."""


async def run_build(
    request: BuildRequest,
    *,
    on_progress: Callable[[Progress], None] = ignore_progress,
    work_root: Path | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    disk_bytes: int | None = None,
) -> BuildResult:
    """Build the image in a worker process and give the result; raises BuildError.

    It may have `disk_bytes` of temporary files; None: whatever the disk holds.

    Cancellation kills the worker and all that it started. Temporary files lie under `work_root` and are
    removed in every case. Safe to repeat after any interruption: the same request gives the same digest.
    """
    async with work_folder(work_root) as work:
        process = await _start(work)
        try:
            async with asyncio.timeout(timeout):
                answer = _converse(process, request, on_progress)
                return await (answer if disk_bytes is None else within_room(work, disk_bytes, answer))
        except TimeoutError as error:
            raise fail(
                Reason.BUILD_TIMEOUT, f"The build was not complete after {timeout:g} seconds."
            ) from error
        finally:
            await _end(process)


async def _start(work: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edgemodel_operator.build",
        "--work",
        str(work),
        "--parent",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
        start_new_session=True,
        env=child_environment(TMPDIR=str(work)),
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the worker's process group, whatever it is doing, and wait until it has gone."""
    if process.returncode is None:  # else the group has gone, and its number may be somebody else's
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # Shielded: a second cancellation must not leave a zombie or files that still grow.
    await asyncio.shield(process.wait())


async def _converse(
    process: asyncio.subprocess.Process, request: BuildRequest, on_progress: Callable[[Progress], None]
) -> BuildResult:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ValueError("the worker was started with pipes")
    logs = asyncio.create_task(_pass_logs(process.stderr, request))
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: the missing answer says so
            process.stdin.write(encode_request(request))
            await process.stdin.drain()
            process.stdin.close()
        final = await _listen(process.stdout, on_progress)
        await logs
    finally:
        logs.cancel()
    if isinstance(final, BuildResult):
        return final
    if isinstance(final, BuildFailure):
        raise BuildError(final)
    code = await process.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    raise fail(Reason.WORKER_DIED, f"The build worker {how} before it answered; the build starts again.")


async def _listen(
    stdout: asyncio.StreamReader, on_progress: Callable[[Progress], None]
) -> BuildResult | BuildFailure | None:
    final: BuildResult | BuildFailure | None = None
    try:
        async for line in stdout:
            if not line.endswith(b"\n"):
                return None  # half a line: the worker died while it wrote
            message = decode_message(line)
            if isinstance(message, Progress):
                on_progress(message)
            else:
                final = message
    except InvalidMessage as error:
        raise fail(Reason.INTERNAL_ERROR, str(error)) from error
    except ValueError as error:  # the stream's own limit
        raise fail(Reason.INTERNAL_ERROR, "The build worker sent a line that is too long.") from error
    return final


async def _pass_logs(stderr: asyncio.StreamReader, request: BuildRequest) -> None:
    while chunk := await stderr.read(MAX_LINE_BYTES):
        for line in chunk.decode(errors="replace").splitlines():
            _log.info("%s (model %s %s)", line[:2000], request.model_name, request.model.version)
