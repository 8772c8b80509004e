"""How long it takes from the start of the process to the first answer, and what that costs."""

from __future__ import annotations

import http.client
import time

from bench.contenders import Contender
from bench.machine import SERVER_CORES, BenchError
from bench.models import make_inputs
from bench.processes import Running
from bench.workplace import Workplace, new_place, serving

_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.004


def measure_cold_start(work: Workplace, contender: Contender, model: str, times: int) -> dict[str, float]:
    """Start a server a few times; the best one counts. Files are in the page cache, bytecode is compiled."""
    wire = "binary" if contender.carries("binary") else "json"
    route = contender.routes[wire]
    payload = route.codec.encode(make_inputs(model, 1)[0])
    starts = []
    with work.progress.step(f"{model}: start {contender.label} {times} times"):
        for _ in range(times):
            place = new_place(work, contender.program, model)
            begun = time.perf_counter()
            with serving(work, contender.program, place, SERVER_CORES) as server:
                request = (route.path.format(model=model), payload.body, dict(payload.headers))
                while not _answers(place.http_port, request):
                    _check(server, begun)
                    time.sleep(_POLL_SECONDS)
                starts.append((time.perf_counter() - begun, server.cpu_seconds()))
    name = f"cold.{contender.label}.{model}"
    return {
        f"{name}.seconds": min(seconds for seconds, _ in starts),
        f"{name}.cpu_seconds": min(cpu for _, cpu in starts),
    }


def _answers(port: int, request: tuple[str, bytes, dict[str, str]]) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("POST", *request)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _check(server: Running, begun: float) -> None:
    if server.process.poll() is not None:
        raise BenchError(f"the server ended before it answered:\n{server.last_words()}")
    if time.perf_counter() - begun > _PATIENCE_SECONDS:
        raise BenchError(f"no answer in {_PATIENCE_SECONDS:.0f} s:\n{server.last_words()}")
