"""The access log: one JSON line per request on standard error, all of them, some, or none.

A line holds what an operator of the server needs and nothing that could be a secret: no body, no header but
the ids of the trace, and no query string.
"""

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from edgemodel_server.trace import TraceContext

_STANDARD_ERROR = 2
_MAX_TEXT = 256
"""Characters of a path or an id: both come from the client, and can be as long as it likes."""


@dataclass(slots=True)
class Work:
    """What was done for an inference request; durations in seconds, None where nothing was computed.

    ``model`` is "" for any other request.
    """

    model: str = ""
    id: str | None = None
    queue: float | None = None
    compute: float | None = None


@dataclass(slots=True)
class Entry:
    """One answered request. ``status`` is HTTP's, and ``grpc_status`` the status that gRPC says beside it.

    ``received`` and ``sent`` are the bytes of the bodies, ``seconds`` the time from the request's last byte.
    """

    protocol: str
    method: str
    path: str
    status: int
    received: int
    sent: int
    seconds: float
    peer: str
    grpc_status: int | None = None
    trace: TraceContext | None = None
    work: Work | None = None

    @property
    def failed(self) -> bool:
        """Whether the request was refused or came to nothing."""
        return self.status >= 400 or bool(self.grpc_status)


class AccessLog:
    """Writes the lines of a sample of the requests, and of all that failed.

    ``fraction`` is the share of the requests that are logged, 1 for all. The choice is made by chance: every
    hundredth would always meet the same probe. Lines are put together for one turn of the loop.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fraction: float, emit: Callable[[bytes], None] | None = None
    ) -> None:
        self._loop = loop
        self._fraction = fraction
        self._emit = emit or _write_to_standard_error
        self._lines: list[bytes] = []

    def wants(self, *, failed: bool) -> bool:
        """Say whether this request is to be logged: ask once, before an entry is made."""
        return failed or random.random() < self._fraction  # noqa: S311 - a sample, not a secret

    def write(self, entry: Entry) -> None:
        """Log a request that ``wants`` chose."""
        if not self._lines:
            self._loop.call_soon(self.flush)
        self._lines.append(render_line(entry))

    def flush(self) -> None:
        """Write the lines that wait; called by the loop, and once more at the end of the process."""
        lines, self._lines = self._lines, []
        if lines:
            self._emit(b"".join(lines))


def render_line(entry: Entry) -> bytes:
    """Return the line of a request, with its line end."""
    line: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "info",
        "event": "request",
        "protocol": entry.protocol,
        "method": entry.method,
        "path": entry.path[:_MAX_TEXT],
        "status": entry.status,
        "bytes_in": entry.received,
        "bytes_out": entry.sent,
        "seconds": round(entry.seconds, 6),
        "peer": entry.peer,
    }
    if entry.grpc_status is not None:
        line["grpc_status"] = entry.grpc_status
    if entry.work is not None and entry.work.model:
        line |= _describe_work(entry.work)
    if entry.trace is not None:
        line |= _describe_trace(entry.trace)
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _describe_work(work: Work) -> dict[str, object]:
    facts: dict[str, object] = {"model": work.model}
    if work.id is not None:
        facts["id"] = work.id[:_MAX_TEXT]
    if work.queue is not None and work.compute is not None:
        facts |= {"queue_seconds": round(work.queue, 6), "compute_seconds": round(work.compute, 6)}
    return facts


def _describe_trace(trace: TraceContext) -> dict[str, object]:
    facts: dict[str, object] = {"trace_id": trace.trace_id, "parent_id": trace.parent_id}
    facts["trace_sampled"] = trace.sampled
    if trace.state:
        facts["trace_state"] = trace.state
    return facts


def _write_to_standard_error(lines: bytes) -> None:
    rest = memoryview(lines)
    with suppress(OSError):  # nobody reads: requests are worth more than their log
        while rest:
            rest = rest[os.write(_STANDARD_ERROR, rest) :]
