"""More connections than there may be: the idle ones make room, and probes always find some."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from doubtful import LIVE
from serving import ModelMaker, ServerProcess, StartServer, Wire

READY = LIVE.replace(b"/live", b"/ready")
CROWDED = "edgemodel_server_crowded_connections_total"
HALF = b" HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
"""What follows the target in the head of a request whose body is waited for: its connection is not idle."""


@pytest.fixture
def server(models: ModelMaker, start_server: StartServer, tmp_path: Path) -> ServerProcess:
    """A server with room for two connections."""
    return start_server("--model", models.dense(tmp_path / "dense.onnx"), "--max-connections", "2")


def open_busy(server: ServerProcess, stack: ExitStack, target: bytes = b"POST /v2/repository/index") -> Wire:
    """Open a connection with a request under way: only its body is missing."""
    wire = stack.enter_context(server.wire())
    assert wire.send(target + HALF).read().status == 100
    return wire


def test_the_connection_that_was_idle_for_longest_makes_room(server: ServerProcess) -> None:
    with server.wire() as oldest, server.wire() as older, server.wire() as new:
        assert oldest.at_end()
        for wire in (older, new):
            assert wire.send(LIVE).read().status == 200
        assert new.send(LIVE).read().headers.get("connection") is None


def test_a_connection_that_was_used_just_now_is_not_the_oldest(server: ServerProcess) -> None:
    with server.wire() as first, server.wire() as second:
        assert second.send(LIVE).read().status == 200
        assert first.send(LIVE).read().status == 200
        with server.wire() as third:
            assert second.at_end()
            assert first.send(LIVE).read().status == 200
            assert third.send(LIVE).read().status == 200


def test_where_none_is_idle_probes_are_answered_and_nothing_else(server: ServerProcess) -> None:
    with ExitStack() as stack:
        busy = [open_busy(server, stack) for _ in range(2)]
        for probe in (LIVE, READY):
            with server.wire() as wire:
                reply = wire.send(probe).read()
                assert (reply.status, reply.headers["connection"]) == (200, "close")
                assert wire.at_end()
        with server.wire() as wire:
            reply = wire.send(b"POST /v2/repository/index" + HALF).read()
            assert (reply.status, reply.headers["connection"]) == (503, "close")
            assert reply.headers["retry-after"] == "1"
            assert "too many connections" in reply.json["error"]
            assert wire.at_end()
        for wire in busy:
            assert wire.send(b"{}").read().status == 200
    assert server.ask("POST", "/v2/repository/index").status == 200
    assert server.metric(CROWDED) >= 3


def test_there_is_an_end_to_the_room_for_probes(server: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            open_busy(server, stack)
        crowd = [open_busy(server, stack, b"GET /v2/health/live") for _ in range(32)]
        last = stack.enter_context(server.wire())
        with pytest.raises((EOFError, ConnectionError)):
            last.send(LIVE).read()
        for wire in crowd:
            assert wire.send(b"{}").read().json == {"live": True}


@pytest.mark.parametrize(
    ("soft", "hard", "want", "warned"),
    [(64, 1000, 428, False), (64, 300, 300, True), (500, 1000, 500, False)],
)
def test_the_limit_of_open_files_is_raised_as_far_as_connections_need_it(
    soft: int, hard: int, want: int, warned: bool
) -> None:
    code = (
        "import resource; from edgemodel_server.open_files import allow_connections; allow_connections(300); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run(
        ["sh", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$0" -c "$1"', sys.executable, code],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == want
    assert ("few open files" in done.stderr) is warned
