"""The access log: which requests have a line, what it says, and what never stands in it."""

import asyncio
import json
import socket
import struct
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ModelMaker, ServerProcess, StartServer

from edgemodel_server.access_log import AccessLog, Entry, Work, render_line
from edgemodel_server.settings import parse_settings
from edgemodel_server.trace import TraceContext, read_trace

X = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def server(
    models: ModelMaker, tmp_path_factory: pytest.TempPathFactory, module_servers: StartServer
) -> ServerProcess:
    path = models.dense(tmp_path_factory.mktemp("access") / "dense.onnx")
    return module_servers("--model", path, "--access-log", "all")


def find_line(server: ServerProcess, **facts: object) -> dict[str, Any]:
    """Wait for the line of a request and return it; it is written after the answer."""

    def fits(line: dict[str, Any]) -> bool:
        return line["event"] == "request" and all(line.get(key) == value for key, value in facts.items())

    with server._news:
        server._news.wait_for(lambda: any(map(fits, server.log)), timeout=60)
        return next(line for line in server.log if fits(line))


def test_an_inference_has_a_line_with_everything(server: ServerProcess) -> None:
    body = json.dumps({"id": "seven", "inputs": [X]}).encode()
    reply = server.ask("POST", "/v2/models/dense/infer", body, traceparent=PARENT, tracestate="a=1,b@c=2")
    assert reply.status == 200
    line = find_line(server, id="seven")
    assert line["protocol"] == "http/1.1"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v2/models/dense/infer", 200)
    assert (line["bytes_in"], line["bytes_out"]) == (len(body), len(reply.body))
    assert line["model"] == "dense"
    assert line["peer"].startswith("127.0.0.1:")
    assert 0 <= line["queue_seconds"] + line["compute_seconds"] <= line["seconds"] < 60
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["parent_id"] == "00f067aa0ba902b7"
    assert line["trace_sampled"] is True
    assert line["trace_state"] == "a=1,b@c=2"


def test_a_request_without_work_has_a_short_line(server: ServerProcess) -> None:
    assert server.ask("HEAD", "/v2/health/live").status == 200
    line = find_line(server, method="HEAD", path="/v2/health/live")
    assert line["bytes_out"] == 0
    assert not {"model", "id", "trace_id", "queue_seconds"} & line.keys()


def test_refused_requests_have_a_line(server: ServerProcess) -> None:
    reply = server.ask("POST", "/v2/models/dense/infer", b'{"id": "wrong", "inputs": []}')
    assert reply.status == 400
    line = find_line(server, status=400, path="/v2/models/dense/infer")
    assert line["model"] == "dense"
    assert "compute_seconds" not in line
    with server.wire() as wire:
        assert wire.send(b"GET / HTTP/1.1\r\n\r\n").read().status == 400
    assert find_line(server, status=400, path="/")["method"] == "GET"


def test_a_client_that_left_before_its_answer_has_a_line(
    models: ModelMaker, tmp_path_factory: pytest.TempPathFactory, start_server: StartServer
) -> None:
    path = models.slow(tmp_path_factory.mktemp("gone") / "slow.onnx")
    server = start_server("--model", path, "--access-log", "0")
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [7]}]}).encode()
    with server.wire() as wire:
        head = b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n"
        wire.send(head % len(body) + body)
        while not server.metric('edgemodel_server_queued_requests{model="slow"}'):
            assert server.process.poll() is None
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
    line = find_line(server, status=499)
    assert (line["model"], line["bytes_in"], line["bytes_out"]) == ("slow", len(body), 0)
    assert server.metric('edgemodel_server_inference_requests_total{model="slow",result="cancelled"}') == 1


def test_nothing_that_could_be_secret_stands_in_the_log(server: ServerProcess) -> None:
    head = (
        b"GET http://me:hunter2@test/v2/health/live?token=hunter2 HTTP/1.1\r\nHost: hunter2\r\n"
        b"Authorization: Bearer hunter2\r\nCookie: hunter2\r\nContent-Length: 7\r\n\r\nhunter2"
    )
    before = sum(line["event"] == "request" for line in server.log)
    with server.wire() as wire:
        assert wire.send(head).read().status == 200
        assert wire.send(b"GET /v2/models/after HTTP/1.1\r\nHost: test\r\n\r\n").read().status == 404
    find_line(server, path="/v2/models/after")
    assert sum(line["event"] == "request" for line in server.log) == before + 2
    assert "hunter2" not in json.dumps(server.log)


def test_long_paths_are_cut(server: ServerProcess) -> None:
    assert server.ask("GET", "/" + "a" * 5000).status == 404
    assert find_line(server, path="/" + "a" * 255)["status"] == 404


def test_by_default_nothing_is_logged(dense_server: ServerProcess) -> None:
    assert dense_server.infer("dense", {"inputs": []}).status == 400
    assert not [line for line in dense_server.log if line["event"] == "request"]


def test_a_sample_has_what_failed_and_some_of_the_rest(
    models: ModelMaker, tmp_path_factory: pytest.TempPathFactory, start_server: StartServer
) -> None:
    path = models.dense(tmp_path_factory.mktemp("sample") / "dense.onnx")
    server = start_server("--model", path, "--access-log", "0.2", "--drain-seconds", "0")
    live, lost = b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /no HTTP/1.1\r\nHost: a\r\n\r\n"
    with server.wire() as wire:
        wire.send((live + lost) * 500)
        statuses = Counter(wire.read().status for _ in range(1000))
    assert statuses == {200: 500, 404: 500}
    server.stop()
    logged = Counter(line["status"] for line in server.log if line["event"] == "request")
    assert logged[404] == 500
    assert 40 < logged[200] < 180  # 100 on average; either bound is six standard deviations away


@pytest.mark.parametrize(
    ("text", "want"), [("off", None), ("all", 1.0), ("1", 1.0), ("0", 0.0), ("0.01", 0.01), ("1e-3", 0.001)]
)
def test_the_sample_is_a_share(text: str, want: float | None) -> None:
    assert parse_settings(["--access-log", text]).access_log == want


@pytest.mark.parametrize("text", ["", "some", "-0.1", "1.1", "nan", "inf", "1%"])
def test_a_sample_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--access-log", text])
    assert "a share from 0 to 1" in capsys.readouterr().err


async def test_the_lines_of_one_turn_of_the_loop_are_written_together() -> None:
    written: list[bytes] = []
    log = AccessLog(asyncio.get_running_loop(), 1.0, written.append)
    for number in range(3):
        log.write(Entry("grpc", "ModelInfer", "/a", 200, 1, 2, 0.5, "", grpc_status=number, work=Work("m")))
    assert written == []
    await asyncio.sleep(0)
    (lines,) = written
    assert [json.loads(line)["grpc_status"] for line in lines.splitlines()] == [0, 1, 2]
    log.flush()
    assert len(written) == 1


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_a_client_says_a_line_is_one_line_of_json(path: str, request_id: str) -> None:
    line = render_line(Entry("http/1.1", "GET", path, 200, 0, 0, 0.0, "", work=Work("m", request_id)))
    assert line.count(b"\n") == 1
    assert json.loads(line)["path"] == path[:256]
    assert json.loads(line)["id"] == request_id[:256]


# -- the trace -----------------------------------------------------------------------------------------------

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("parent", "sampled"),
    [
        (PARENT, True),
        (PARENT[:-1] + "0", False),
        (PARENT[:-2] + "ff", True),
        ("cc" + PARENT[2:], True),
        ("cc" + PARENT[2:] + "-what-the-future-is-like", True),
    ],
)
def test_a_trace_is_read(parent: str, sampled: bool) -> None:
    assert read_trace({b"traceparent": parent.encode()}) == TraceContext(TRACE_ID, PARENT_ID, sampled, "")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "ff" + PARENT[2:],
        PARENT + "-more",
        PARENT + "\n",
        PARENT.upper(),
        PARENT[:-1],
        "cc" + PARENT[2:] + "more",
        PARENT.replace(TRACE_ID, "0" * 32),
        PARENT.replace(PARENT_ID, "0" * 16),
        PARENT.replace("-", "_"),
        f"{PARENT}, {PARENT}",
    ],
)
def test_a_trace_that_is_none_is_ignored(parent: str) -> None:
    assert read_trace({b"traceparent": parent.encode(), b"tracestate": b"a=1"}) is None


@pytest.mark.parametrize(
    ("state", "want"),
    [
        ("a=1", "a=1"),
        (" a=1 ,\t,b=2 ", "a=1,b=2"),
        ("tenant@system=x y", "tenant@system=x y"),
        ("1tenant@system=x", "1tenant@system=x"),
        ("", ""),
        ("a", ""),
        ("A=1", ""),
        ("1a=1", ""),
        ("a=1=2", ""),
        ("a=", ""),
        ("a=1,a=2", ""),
        ("a=ä", ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
        ("a=" + "b" * 600, ""),
    ],
)
def test_a_bad_state_is_dropped_and_the_trace_kept(state: str, want: str) -> None:
    trace = read_trace({b"traceparent": PARENT.encode(), b"tracestate": state.encode()})
    assert trace is not None
    assert trace.state == want


@given(st.binary(), st.binary())
def test_no_trace_header_is_too_strange(parent: bytes, state: bytes) -> None:
    read_trace({b"traceparent": parent, b"tracestate": state})
    read_trace({b"traceparent": PARENT.encode(), b"tracestate": state})


def test_trace_headers_given_twice_are_no_reason_to_refuse(server: ServerProcess) -> None:
    twice = f"traceparent: {PARENT}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"
    with server.wire() as wire:
        head = f"GET /v2/models HTTP/1.1\r\nHost: test\r\n{twice}\r\n"
        assert wire.send(head.encode()).read().status == 200
    assert find_line(server, path="/v2/models")["trace_state"] == "a=1,b=2"
    with server.wire() as wire:
        head = f"GET /v2/health/ready HTTP/1.1\r\nHost: test\r\n{twice}{twice}\r\n"
        assert wire.send(head.encode()).read().status == 200
    assert "trace_id" not in find_line(server, path="/v2/health/ready")
