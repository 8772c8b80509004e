"""What it costs to be watched: counters, scrapes of the metrics, health probes."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from bench.asking import make_reference, over_http, wait_for_answers
from bench.clients import make_client
from bench.contenders import OURS, Contender
from bench.loadgen import percentile
from bench.machine import CLIENT_CORES, SERVER_CORES, BenchError
from bench.models import INPUT, make_slow, slow_input
from bench.payloads import V2_JSON
from bench.processes import pinned
from bench.results import Load
from bench.session import open_session
from bench.workplace import Workplace, new_place, serving

_CLIENTS = 8
_SCRAPES_PER_SECOND = 10
_SCRAPE_ROUNDS = 3
_PROBES = 200
_PROBE_PAUSE_SECONDS = 0.02
_SLOW_SECONDS = 0.5
_TRIAL_ROUNDS = 200


def measure_metrics_cost(work: Workplace) -> dict[str, float]:
    """Measure the microseconds that the counters and histograms of one request take."""
    argv = pinned([work.python(OURS), "-m", "bench.metrics_cost"], SERVER_CORES)
    done = subprocess.run(argv, env=work.variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"the cost of the metrics could not be measured:\n{done.stderr[-1000:]}")
    return {"metrics.us": float(done.stdout)}


def measure_scrapes(work: Workplace, contender: Contender) -> dict[str, float]:
    """Compare the 99th percentile of `ad` with and without scrapes of `/metrics`, in turn.

    The difference is that of the best windows: noise only ever adds to a percentile.
    """
    place = new_place(work, contender.program, "ad")
    quiet, scraped = [], []
    step = work.progress.step("ad: scrape the metrics under load")
    with step, serving(work, contender.program, place, SERVER_CORES) as server:
        client = make_client(contender, Load("ad", "binary", _CLIENTS), place, server)
        client.run(_CLIENTS, 1.0, CLIENT_CORES)
        for _ in range(_SCRAPE_ROUNDS):
            quiet.append(client.run(_CLIENTS, work.pace.seconds, CLIENT_CORES).p99_ms)
            with _repeating(lambda: _get(place.http_port, "/metrics"), 1 / _SCRAPES_PER_SECOND):
                scraped.append(client.run(_CLIENTS, work.pace.seconds, CLIENT_CORES).p99_ms)
    return {"metrics.p99_delay_ms": min(scraped) - min(quiet)}


def measure_probes(work: Workplace, contender: Contender) -> dict[str, float]:
    """Ask for the server's health while one computation of half a second follows the other."""
    path = make_slow(work.folder / "slow.onnx", _slow_rounds(work))
    slow = work.with_model("slow", path)
    place = new_place(slow, contender.program, "slow")
    tensor = slow_input()
    reference = make_reference(path, [tensor])
    step = work.progress.step(f"slow: {_PROBES} health probes during computations")
    with step, serving(slow, contender.program, place, SERVER_CORES) as server:
        ask = over_http(place.http_port, "/v2/models/slow/infer", V2_JSON)
        wait_for_answers(ask, reference, lambda: server.process.poll() is None)
        idle = _probe(place.http_port)
        with _repeating(lambda: ask(tensor), 0.0):
            time.sleep(0.1)
            busy = _probe(place.http_port)
    return {
        "probe.idle_median_ms": percentile(idle, 50) / 1e6,
        "probe.median_ms": percentile(busy, 50) / 1e6,
        "probe.p99_ms": percentile(busy, 99) / 1e6,
    }


def _slow_rounds(work: Workplace) -> int:
    """Return how many rounds take half a second on this machine."""
    session = open_session(str(make_slow(work.folder / "trial.onnx", _TRIAL_ROUNDS)))
    feed = {INPUT: slow_input()}
    session.run(None, feed)
    begun = time.perf_counter()
    session.run(None, feed)
    return int(_TRIAL_ROUNDS * _SLOW_SECONDS / (time.perf_counter() - begun))


def _probe(port: int) -> list[int]:
    """Return how many nanoseconds each probe took, in order; each connects anew, as a kubelet does."""
    took = []
    for _ in range(_PROBES):
        begun = time.perf_counter_ns()
        _get(port, "/v2/health/live")
        took.append(time.perf_counter_ns() - begun)
        time.sleep(_PROBE_PAUSE_SECONDS)
    return sorted(took)


def _get(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise BenchError(f"{path} was answered with {reply.status}")


@contextlib.contextmanager
def _repeating(action: Callable[[], object], pause_seconds: float) -> Iterator[None]:
    """Do something over and over, in a thread, while the block lasts; raises what the action raised."""
    ended = threading.Event()
    failures: list[Exception] = []

    def repeat() -> None:
        try:
            while not ended.wait(pause_seconds):
                action()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failures:
        raise BenchError(f"a request in the background failed: {failures[0]}")
