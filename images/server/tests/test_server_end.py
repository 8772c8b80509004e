"""Load and the end: bounded queues, probes beside computations, and a drain without one failed request."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import ModelMaker, ServerProcess, StartServer

from edgemodel_server.override import override
from edgemodel_server.ports import open_listener

DENSE = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
).encode()
SLOW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [7]}]}
QUEUED = 'edgemodel_server_queued_requests{model="slow"}'


@pytest.fixture
def slow_model(models: ModelMaker, tmp_path: Path) -> Path:
    return models.slow(tmp_path / "slow.onnx")


def wait_until_queued(server: ServerProcess, count: int) -> None:
    while server.metric(QUEUED) < count:
        assert server.process.poll() is None


def test_probes_are_answered_while_every_thread_computes(slow_model: Path, start_server: StartServer) -> None:
    server = start_server("--model", slow_model, "--threads", "2")
    with server.wire() as wire, server.wire() as other:
        body = json.dumps(SLOW).encode()
        text = (
            b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        wire.send(text * 3)
        other.send(text * 3)
        wait_until_queued(server, 2)
        assert server.ask("GET", "/v2/health/live").status == 200
        assert server.metric(QUEUED) == 2  # both are still under way
        for _ in range(3):
            assert wire.read().json["outputs"][0]["data"] == [7]
            assert other.read().json["outputs"][0]["data"] == [7]
    assert server.metric('edgemodel_server_inference_requests_total{model="slow",result="ok"}') == 6
    assert server.metric('edgemodel_server_compute_duration_seconds_count{model="slow"}') == 6


def test_a_full_queue_answers_503_with_retry_after(slow_model: Path, start_server: StartServer) -> None:
    server = start_server("--model", slow_model, "--threads", "1", "--max-queue", "2")
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(server.infer, "slow", SLOW) for _ in range(2)]
        wait_until_queued(server, 2)
        refused = server.infer("slow", SLOW)
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        assert "already wait" in refused.json["error"]
        assert [future.result().status for future in accepted] == [200, 200]
    assert server.metric('edgemodel_server_inference_requests_total{model="slow",result="overloaded"}') == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_is_finished_before_the_end(
    slow_model: Path, start_server: StartServer, number: int
) -> None:
    server = start_server("--model", slow_model, "--threads", "1", "--drain-seconds", "0")
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(server.infer, "slow", SLOW) for _ in range(2)]
        wait_until_queued(server, 2)
        server.process.send_signal(number)
        replies = [future.result() for future in futures]
    assert [reply.status for reply in replies] == [200, 200]
    assert server.wait() == 0
    assert server.wait_for("stopped")


def test_a_second_signal_ends_at_once(slow_model: Path, start_server: StartServer) -> None:
    server = start_server("--model", slow_model, "--drain-seconds", "3600")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining")
    assert server.stop() == 0


class Client(threading.Thread):
    """Asks without a pause until told to stop, on one connection for as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.statuses: list[int] = []
        self.closed_by_server = 0
        self.stop = threading.Event()
        self.failure: Exception | None = None

    @override
    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self._connection.request("POST", "/v2/models/dense/infer", DENSE)
                response = self._connection.getresponse()
                response.read()
                self.statuses.append(response.status)
                self.closed_by_server += response.getheader("Connection") == "close"
        except (OSError, http.client.HTTPException) as error:
            self.failure = error
        finally:
            self._connection.close()


def test_no_request_fails_while_draining(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--model", models.dense(tmp_path / "dense.onnx"), "--drain-seconds", "3600")
    clients = [Client(server.port) for _ in range(4)]
    idle = server.wire()
    for client in clients:
        client.start()
    with idle:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        ready = server.ask("GET", "/v2/health/ready")
        assert ready.status == 503
        assert ready.json["reasons"][0]["reason"] == "Draining"
        assert ready.json["models"][0]["ready"] is True
        assert server.ask("GET", "/v2/health/live").status == 200
        seen = [len(client.statuses) for client in clients]
        while any(len(client.statuses) < before + 50 for client, before in zip(clients, seen, strict=True)):
            assert all(client.is_alive() for client in clients), [client.failure for client in clients]
        for client in clients:
            client.stop.set()
        for client in clients:
            client.join()
        assert [client.failure for client in clients] == [None] * 4
        assert {status for client in clients for status in client.statuses} == {200}
        assert all(client.closed_by_server >= 50 for client in clients)
        assert server.process.poll() is None  # the drain is not over: idle connections are still open
        idle.send(b"GET /v2/health/live HTTP/1.1\r\nHost: test\r\n\r\n")
        assert idle.read().headers["connection"] == "close"
        assert idle.at_end()
    assert server.stop() == 0


def test_idle_connections_are_closed_at_the_end_of_the_drain(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--model", models.dense(tmp_path / "dense.onnx"), "--drain-seconds", "0.1")
    with server.wire() as wire:
        assert wire.send(b"GET /v2 HTTP/1.1\r\nHost: test\r\n\r\n").read().status == 200
        assert server.stop() == 0
        assert wire.at_end()


def test_pipelined_requests_are_all_answered_while_draining(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--model", models.dense(tmp_path / "dense.onnx"), "--drain-seconds", "3600")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining")
    with server.wire() as wire:
        wire.send(b"GET /v2 HTTP/1.1\r\nHost: test\r\n\r\n" * 20)
        replies = [wire.read() for _ in range(20)]
        assert [reply.status for reply in replies] == [200] * 20
        assert replies[-1].headers["connection"] == "close"
        assert wire.at_end()


def test_a_server_without_a_ready_model_ends_without_a_drain(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--model-root", tmp_path, "--drain-seconds", "3600")
    assert server.stop() == 0


def test_a_port_that_is_taken_is_told(
    dense_server: ServerProcess, start_server: StartServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "edgemodel_server", "--model-root", str(tmp_path)]
    command += ["--host", "127.0.0.1", "--http-port", str(dense_server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_without_a_host_all_addresses_are_listened_on() -> None:
    with open_listener(None, 0) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1") if listener.family == socket.AF_INET6 else ("127.0.0.1",):
            with socket.create_connection((host, port), timeout=60):
                listener.accept()[0].close()
