"""The clients: `wrk` for HTTP/1.1, `h2load` for gRPC. Both are C programs that outrun every server here."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from bench.machine import BenchError
from bench.payloads import Payload
from bench.processes import run_pinned

_PATIENCE_SECONDS = 60

_WRK_SCRIPT = """\
wrk.method = "POST"
{headers}
local requests, turn = {{}}, 0

function init(files)
  for _, name in ipairs(files) do
    local file = assert(io.open(name, "rb"))
    requests[#requests + 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  local result = '{{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}}'
  io.write("\\nRESULT " .. string.format(result, summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed) .. "\\n")
end
"""
"""Sends the files in turn, so that no server can live on one answer; `wrk` is single-threaded here."""


@dataclass(frozen=True)
class Answered:
    """What a client saw in one window."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


class HttpLoad:
    """A load of HTTP requests with different bodies, taken in turn."""

    def __init__(self, folder: Path, url: str, payloads: Sequence[Payload]) -> None:
        folder.mkdir(parents=True)
        self._url = url
        self._bodies: list[str] = []
        for number, payload in enumerate(payloads):
            (folder / f"body{number}").write_bytes(payload.body)
            self._bodies.append(str(folder / f"body{number}"))
        self._script = folder / "load.lua"
        headers = "\n".join(
            f'wrk.headers["{name}"] = "{value}"' for name, value in payloads[0].headers.items()
        )
        self._script.write_text(_WRK_SCRIPT.format(headers=headers))

    def run(self, clients: int, seconds: float, cores: Set[int]) -> Answered:
        """Keep `clients` connections busy; raises BenchError when a request fails."""
        argv = ["wrk", "--threads", "1", "--connections", str(clients),
                "--duration", f"{math.ceil(seconds)}s", "--timeout", "30s",
                "--script", str(self._script), self._url, "--", *self._bodies]  # fmt: skip
        return parse_wrk(_run_client(argv, cores, seconds))


class GrpcLoad:
    """A load of one unary gRPC call; `body` is the message with its five bytes of framing."""

    def __init__(self, folder: Path, url: str, body: bytes, answer_bytes: int) -> None:
        folder.mkdir(parents=True)
        self._url = url
        self._body = folder / "body"
        self._body.write_bytes(body)
        self._log = folder / "log"
        self._answer_bytes = answer_bytes

    def run(self, clients: int, seconds: float, cores: Set[int]) -> Answered:
        """Keep `clients` connections busy; raises BenchError when a call fails or its answer is too short."""
        self._log.unlink(missing_ok=True)
        argv = ["h2load", "--threads", "1", "--clients", str(clients), "--max-concurrent-streams", "1",
                "--duration", str(math.ceil(seconds)), "--data", str(self._body),
                "--header", "content-type: application/grpc", "--header", "te: trailers",
                "--log-file", str(self._log), self._url]  # fmt: skip
        output = _run_client(argv, cores, seconds)
        # An error of gRPC is a 200 of HTTP, with nothing in it: so the bytes are looked at.
        answered = parse_h2load_log(self._log.read_text())
        data = parse_h2load_data_bytes(output)
        if data < answered.requests * self._answer_bytes:
            average = data / answered.requests
            raise BenchError(f"a call was answered with {average:.0f} bytes, not {self._answer_bytes}")
        return answered


def parse_wrk(output: str) -> Answered:
    """Read the line that the script prints at the end; raises BenchError when a request failed."""
    found = re.search(r"^RESULT (.*)$", output, re.MULTILINE)
    if found is None:
        raise BenchError(f"wrk ended without a result:\n{output}")
    result = json.loads(found[1])
    if result.pop("errors") or not result["requests"]:
        raise BenchError(f"requests failed or none was answered:\n{output}")
    return Answered(**result)


def parse_h2load_log(log: str) -> Answered:
    """Read h2load's log: start in microseconds, status, microseconds until the answer's end, per request."""
    rows = [line.split("\t") for line in log.splitlines()]
    if not rows or any(row[1] != "200" for row in rows):
        raise BenchError("gRPC calls failed, or none was answered")
    took = sorted(int(row[2]) for row in rows)
    ends = [int(row[0]) + int(row[2]) for row in rows]
    seconds = (max(ends) - min(int(row[0]) for row in rows)) / 1e6
    return Answered(len(rows), seconds, percentile(took, 50) / 1e3, percentile(took, 99) / 1e3)


def parse_h2load_data_bytes(output: str) -> int:
    """Return how many bytes of DATA frames h2load has received."""
    found = re.search(r"^traffic: .*\((\d+)\) data$", output, re.MULTILINE)
    if found is None:
        raise BenchError(f"h2load ended without a result:\n{output}")
    return int(found[1])


def percentile(ordered: Sequence[int], percent: float) -> int:
    """Return the smallest of the ordered numbers that `percent` % of them do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _run_client(argv: Sequence[str], cores: Set[int], seconds: float) -> str:
    try:
        return run_pinned(argv, cores, seconds + _PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{argv[0]} did not end: the server hangs") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{argv[0]} failed:\n{error.output}") from None
