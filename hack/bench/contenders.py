"""Who is measured: how each server is started, and which of its routes carries which load."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.payloads import JSON_DATA, RAW_BYTES, V2_BINARY, V2_JSON, Codec

OURS = "edgemodel-server"
ECHO = "echo (no model)"


@dataclass(frozen=True)
class Place:
    """Where a server serves what: the model, its file, the ports, and a folder for files of its own."""

    model: str
    file: Path
    http_port: int
    grpc_port: int
    folder: Path


@dataclass(frozen=True)
class Program:
    """How a server is started; `python` is that of its own virtual environment. `grpc`: it can serve that."""

    name: str
    command: Callable[[str, Place], Sequence[str]]
    grpc: bool = False


@dataclass(frozen=True)
class Route:
    """Where one kind of load goes; `{model}` and `{answer_bytes}` in the path stand for what they say."""

    path: str
    codec: Codec


@dataclass(frozen=True)
class Contender:
    """One row of the tables: a program, used in one way. Wires are `binary`, `json` and `grpc`."""

    label: str
    program: Program
    routes: Mapping[str, Route]

    def carries(self, wire: str) -> bool:
        """Tell whether the server speaks that."""
        return wire in self.routes or (wire == "grpc" and self.program.grpc)


def _ours(python: str, place: Place) -> Sequence[str]:
    ports = ["--host", "127.0.0.1", "--http-port", str(place.http_port)]
    if place.grpc_port:
        ports += ["--grpc-port", str(place.grpc_port)]
    return [
        python,
        "-m",
        "edgemodel_server",
        "--model",
        f"{place.model}={place.file}",
        "--drain-seconds",
        "0",
        *ports,
    ]


def _echo(python: str, place: Place) -> Sequence[str]:
    return [python, "-m", "bench.echo", str(place.http_port)]


def _own_module(module: str) -> Callable[[str, Place], Sequence[str]]:
    def command(python: str, place: Place) -> Sequence[str]:
        served = (place.model, str(place.file), str(place.http_port), str(place.grpc_port))
        return [python, "-m", f"bench.peers.{module}", *served]

    return command


def _mlserver(python: str, place: Place) -> Sequence[str]:
    settings = {
        "host": "127.0.0.1",
        "http_port": place.http_port,
        "grpc_port": place.grpc_port,
        "metrics_port": 0,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": place.model,
        "implementation": "bench.peers.mlserver_runtime.OnnxModel",
        "parameters": {"uri": str(place.file)},
    }
    (place.folder / "settings.json").write_text(json.dumps(settings))
    (place.folder / "model-settings.json").write_text(json.dumps(model))
    return [str(Path(python).with_name("mlserver")), "start", str(place.folder)]


_V2_PATH = "/v2/models/{model}/infer"
_V2 = {"json": Route(_V2_PATH, V2_JSON), "binary": Route(_V2_PATH, V2_BINARY)}
_OURS = Program(OURS, _ours, grpc=True)
_FASTAPI = Program("fastapi", _own_module("fastapi_app"))

CONTENDERS: tuple[Contender, ...] = (
    Contender(OURS, _OURS, _V2),
    Contender(
        ECHO,
        Program(ECHO, _echo),
        {wire: Route("/{answer_bytes}", route.codec) for wire, route in _V2.items()},
    ),
    Contender("fastapi", _FASTAPI, {"json": Route("/json", JSON_DATA), "binary": Route("/raw", RAW_BYTES)}),
    Contender("fastapi+orjson", _FASTAPI, {"json": Route("/orjson", JSON_DATA)}),
    Contender("kserve", Program("kserve", _own_module("kserve_app"), grpc=True), _V2),
    Contender("mlserver", Program("mlserver", _mlserver, grpc=True), {"json": _V2["json"]}),
    Contender(
        "litserve", Program("litserve", _own_module("litserve_app")), {"json": Route("/predict", JSON_DATA)}
    ),
    Contender("grpcio", Program("grpcio", _own_module("grpcio_app"), grpc=True), {}),
)

PEERS: tuple[str, ...] = tuple(
    dict.fromkeys(one.program.name for one in CONTENDERS if one.label not in (OURS, ECHO))
)
"""The names that `--peers` takes."""
