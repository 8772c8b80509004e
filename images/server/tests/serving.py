"""Real models made on the spot, real server processes, and HTTP spoken byte by byte."""

import contextlib
import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PROTOBUF_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


class ModelMaker:
    """Writes small ONNX models."""

    def save(
        self, path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]
    ) -> Path:
        graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path

    def dense(self, path: Path, scale: float = 1.0) -> Path:
        """x: FP32 [n, 4] -> y: FP32 [n, 3], with weights that are not round in binary."""
        weights = (np.arange(12, dtype=np.float32).reshape(4, 3) / 7 - 0.5) * np.float32(scale)
        value = helper.make_tensor_value_info
        return self.save(
            path,
            [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
            [value("x", TensorProto.FLOAT, ["n", 4])],
            [value("y", TensorProto.FLOAT, ["n", 3])],
            [numpy_helper.from_array(weights, "w")],
        )

    def identities(self, path: Path) -> Path:
        """One input and one equal output per datatype: in_FP32 -> out_FP32, each of shape [n, 2]."""
        value = helper.make_tensor_value_info
        return self.save(
            path,
            [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in PROTOBUF_TYPES],
            [value(f"in_{name}", kind, ["n", 2]) for name, kind in PROTOBUF_TYPES.items()],
            [value(f"out_{name}", kind, ["n", 2]) for name, kind in PROTOBUF_TYPES.items()],
            [],
        )

    def identity(self, path: Path, datatype: str, shape: list[Any]) -> Path:
        """x -> y, equal."""
        value = helper.make_tensor_value_info
        kind = PROTOBUF_TYPES[datatype]
        node = helper.make_node("Identity", ["x"], ["y"])
        return self.save(path, [node], [value("x", kind, shape)], [value("y", kind, shape)], [])

    def log(self, path: Path) -> Path:
        """x: FP32 [n] -> y = log(x), which is -inf for 0 and NaN below."""
        value = helper.make_tensor_value_info
        return self.save(
            path,
            [helper.make_node("Log", ["x"], ["y"])],
            [value("x", TensorProto.FLOAT, ["n"])],
            [value("y", TensorProto.FLOAT, ["n"])],
            [],
        )

    def across_rows(self, path: Path) -> Path:
        """x: FP32 [n, 4] -> y = x / sum over all rows: dimension 0 looks like a batch, and is none."""
        value = helper.make_tensor_value_info
        return self.save(
            path,
            [
                helper.make_node("ReduceSum", ["x", "rows"], ["sum"], keepdims=1),
                helper.make_node("Div", ["x", "sum"], ["y"]),
            ],
            [value("x", TensorProto.FLOAT, ["n", 4])],
            [value("y", TensorProto.FLOAT, ["n", 4])],
            [numpy_helper.from_array(np.array([0], dtype=np.int64), "rows")],
        )

    def lookup(self, path: Path) -> Path:
        """x: INT64 [n] -> y: FP32 [n, 2], rows of a table with 10; another index is an error."""
        table = np.arange(20, dtype=np.float32).reshape(10, 2)
        value = helper.make_tensor_value_info
        return self.save(
            path,
            [helper.make_node("Gather", ["table", "x"], ["y"])],
            [value("x", TensorProto.INT64, ["n"])],
            [value("y", TensorProto.FLOAT, ["n", 2])],
            [numpy_helper.from_array(table, "table")],
        )

    def deep(self, path: Path) -> Path:
        """x: FP32 [n, 64] -> y: FP32 [n, 64], eight dense layers with tanh between them."""
        random = np.random.default_rng(3)
        value = helper.make_tensor_value_info
        names = ["x", *[f"h{layer}" for layer in range(7)], "y"]
        nodes, weights = [], []
        for layer in range(8):
            weight = random.standard_normal((64, 64)).astype(np.float32) / 8
            weights.append(numpy_helper.from_array(weight, f"w{layer}"))
            nodes.append(helper.make_node("MatMul", [names[layer], f"w{layer}"], [f"m{layer}"]))
            nodes.append(helper.make_node("Tanh", [f"m{layer}"], [names[layer + 1]]))
        return self.save(
            path,
            nodes,
            [value("x", TensorProto.FLOAT, ["n", 64])],
            [value("y", TensorProto.FLOAT, ["n", 64])],
            weights,
        )

    def slow(self, path: Path, rounds: int = 6000) -> Path:
        """x: FP32 [1] -> y = x, after ``rounds`` matrix products that cannot be optimized away."""
        value = helper.make_tensor_value_info
        matrix = value("m_in", TensorProto.FLOAT, [128, 128])
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["m_in", "half"], ["m_out"]),
                helper.make_node("Identity", ["go_in"], ["go_out"]),
            ],
            "body",
            [value("i", TensorProto.INT64, []), value("go_in", TensorProto.BOOL, []), matrix],
            [value("go_out", TensorProto.BOOL, []), value("m_out", TensorProto.FLOAT, [128, 128])],
        )
        zeros = np.zeros((128, 128), dtype=np.float32)
        return self.save(
            path,
            [
                helper.make_node("Expand", ["x", "square"], ["start"]),
                helper.make_node("Loop", ["count", "", "start"], ["end"], body=body),
                helper.make_node("ReduceMax", ["end"], ["most"], keepdims=0),
                helper.make_node("Mul", ["most", "zero"], ["nothing"]),
                helper.make_node("Add", ["x", "nothing"], ["y"]),
            ],
            [value("x", TensorProto.FLOAT, [1])],
            [value("y", TensorProto.FLOAT, [1])],
            [
                numpy_helper.from_array(np.array(rounds, dtype=np.int64), "count"),
                numpy_helper.from_array(zeros, "half"),
                numpy_helper.from_array(np.array([128, 128], dtype=np.int64), "square"),
                numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
            ],
        )

    def write_manifest(self, folder: Path, name: str, version: str = "7", /, **changes: object) -> Path:
        """Describe the files of a folder as they are; ``changes`` replace top-level fields."""
        files = [
            {
                "path": str(path.relative_to(folder)),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size": path.stat().st_size,
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        ]
        document: dict[str, object] = {
            "schema": "edgemodel.dev/model/v1",
            "name": name,
            "version": version,
            "format": "ONNX",
            "files": files,
            **changes,
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        (folder / "manifest.json").write_text(text)
        return folder


@dataclass
class Reply:
    """One HTTP response as it was read."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A plain TCP connection, for saying exactly the bytes that a test wants to say."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.stream: BinaryIO = self.socket.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.socket.close()

    def send(self, text: bytes) -> "Wire":
        self.socket.sendall(text)
        return self

    def read(self, *, head_only: bool = False) -> Reply:
        """Read one response; fails if the connection ends before."""
        line = self.stream.readline()
        if not line:
            raise EOFError("the server closed the connection")
        headers: dict[str, str] = {}
        while (header := self.stream.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if head_only else int(headers.get("content-length", "0"))
        return Reply(int(line.split()[1]), headers, self.stream.read(length))

    def at_end(self) -> bool:
        """Wait for the server's end of the connection, or for a byte that should not be there."""
        return self.stream.read(1) == b""


def _parse_line(line: str) -> dict[str, Any]:
    """Return a line of the log; what is none, as a traceback, is kept for whoever looks for the reason."""
    try:
        parsed: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"event": "not JSON", "text": line}
    return parsed


@dataclass
class ServerProcess:
    """A running ``edgemodel-server`` and its log."""

    process: subprocess.Popen[str]
    port: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.log.append(_parse_line(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, *events: str) -> dict[str, Any]:
        """Wait until the log holds one of ``events`` and return that line."""

        def find() -> dict[str, Any] | None:
            return next((line for line in self.log if line["event"] in events), None)

        with self._news:
            self._news.wait_for(lambda: find() is not None or self._ended, timeout=120)
            found = find()
        assert found is not None, self.log
        return found

    def wire(self) -> Wire:
        return Wire(self.port)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Send one request on a connection of its own."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        with self.wire() as wire:
            return wire.send(head.encode() + body).read(head_only=method == "HEAD")

    def infer(self, model: str, document: object) -> Reply:
        return self.ask("POST", f"/v2/models/{model}/infer", json.dumps(document).encode())

    def metric(self, series: str) -> float:
        """Return the value of one series, written as it stands on the metrics page."""
        page = self.ask("GET", "/metrics").body.decode()
        return next(
            float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(series + " ")
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(timeout=120)
        self._reader.join(timeout=60)
        return status


StartServer = Callable[..., ServerProcess]


@contextlib.contextmanager
def running_servers() -> Iterator[StartServer]:
    """Give a function that starts servers; all of them end with the block."""
    started: list[ServerProcess] = []

    def start(
        *arguments: object, until: tuple[str, ...] = ("model ready", "model not ready")
    ) -> ServerProcess:
        command = [sys.executable, "-m", "edgemodel_server", *map(str, arguments)]
        if not {"--prefetch", "--check"} & set(command):
            command += ["--host", "127.0.0.1", "--http-port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        server = ServerProcess(process)
        started.append(server)
        if "--host" in command:
            server.port = server.wait_for("listening")["port"]
        if until:
            server.wait_for(*until)
        return server

    try:
        yield start
    finally:
        for server in started:
            if server.process.poll() is None:
                server.process.kill()
            server.wait()
            assert server.process.stderr is not None
            server.process.stderr.close()
