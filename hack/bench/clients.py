"""From a server that has just been started to a load for it: its answers are checked in between."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bench.asking import Reference, make_reference, over_http, wait_for_answers, wait_for_port
from bench.contenders import ECHO, Contender, Place
from bench.grpc_client import make_grpc_load
from bench.loadgen import GrpcLoad, HttpLoad
from bench.machine import BenchError
from bench.models import make_inputs
from bench.processes import Running
from bench.results import Load

_INPUTS = 4


def make_client(contender: Contender, load: Load, place: Place, server: Running) -> HttpLoad | GrpcLoad:
    """Wait for the server, check that it answers right, and return the load. Raises BenchError."""
    try:
        return _make_client(contender, load, place, server)
    except BenchError as error:
        raise BenchError(f"{contender.label}, {load}: {error}\n{server.last_words()}") from None


def _make_client(contender: Contender, load: Load, place: Place, server: Running) -> HttpLoad | GrpcLoad:
    folder = place.folder / f"{contender.label}-{load}".replace(" ", "-")
    reference = _reference(place.model, place.file)

    def alive() -> bool:
        return server.process.poll() is None

    if load.wire == "grpc":
        return make_grpc_load(folder, place.grpc_port, place.model, reference, alive)
    route = contender.routes[load.wire]
    answer_bytes = len(route.codec.encode(reference.outputs[0]).body)
    path = route.path.format(model=place.model, answer_bytes=answer_bytes)
    if contender.label == ECHO:
        wait_for_port(place.http_port, alive)
    else:
        wait_for_answers(over_http(place.http_port, path, route.codec), reference, alive)
    payloads = [route.codec.encode(tensor) for tensor in reference.inputs]
    return HttpLoad(folder, f"http://127.0.0.1:{place.http_port}{path}", payloads)


@cache
def _reference(model: str, file: Path) -> Reference:
    return make_reference(file, make_inputs(model, _INPUTS))
