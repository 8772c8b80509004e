"""Check attested documents with CEL, in a process that can be ended: an expression may run for ages.

The evaluator holds Python's global lock while it works, so that a thread would stop everything else. Running
out of time or memory is a no, since the same document would run out again; a process that cannot be run, or
is killed from outside, is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from edgemodel_operator.signing.demand import PredicateCheck
from edgemodel_operator.signing.errors import CannotCheck

CPU_SECONDS = 10
"""A bill of materials of 16 MiB takes a small board a few."""
WAIT_SECONDS = 30.0
_DIED_OF_IT = frozenset({-signal.SIGXCPU, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL})
"""What a document or an expression can bring about; any other end says nothing about them."""
_WORKER = "edgemodel_operator.signing.predicate_worker"


class PredicateChecks:
    """Evaluates checks while the block lasts. Nothing is started before the first."""

    def __init__(self, *, cpu_seconds: int = CPU_SECONDS, wait_seconds: float = WAIT_SECONDS) -> None:
        """`cpu_seconds` is what the checks of one statement may take of a processor."""
        self._cpu_seconds = cpu_seconds
        self._wait_seconds = wait_seconds
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # Taking the rest of the pipes lets their transports close before the event loop does.
            await process.communicate()

    async def first_failure(self, checks: Sequence[PredicateCheck], statement: bytes) -> str | None:
        """Say what the predicate of a strictly parsed statement lacks, None for nothing.

        Raises CannotCheck when that could not be found out.
        """
        if not checks:
            return None
        try:
            async with asyncio.timeout(self._wait_seconds):
                answer = await self._ask([check.expression for check in checks], statement)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise CannotCheck(f"the checks of an attestation could not be run: {error!r}") from error
        if answer is None:
            return None
        index, why = answer
        return f"{checks[index].message.rstrip('.')} ({why})"

    async def _ask(self, expressions: list[str], statement: bytes) -> tuple[int, str] | None:
        process = await self._running()
        line = await _exchange(process, json.dumps(expressions).encode(), statement)
        if line:
            answer = json.loads(line)
            return None if answer is None else (int(answer[0]), str(answer[1]))
        self._process = None
        status = await process.wait()
        if status not in _DIED_OF_IT:
            raise CannotCheck(f"the process that checks attestations ended with status {status}")
        return 0, "it took too long" if status == -signal.SIGXCPU else f"it ended the evaluator ({status})"

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", _WORKER, str(self._cpu_seconds)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
            )
        return self._process


async def _exchange(process: asyncio.subprocess.Process, *frames: bytes) -> bytes:
    """Send frames and give the line that comes back; none comes from a process that has ended."""
    if process.stdin is None or process.stdout is None:
        raise CannotCheck("the process that checks attestations has no pipes")
    for frame in frames:
        process.stdin.write(len(frame).to_bytes(4) + frame)
    with contextlib.suppress(ConnectionError):
        await process.stdin.drain()
    return await process.stdout.readline()
