"""What native libraries print becomes JSON in the log; what the CPU would compute becomes one sentence."""

import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from edgemodel_server.errors import Reason, StartError
from edgemodel_server.log import configure_log
from edgemodel_server.runtimes.native_output import logged_native_output
from edgemodel_server.runtimes.placement import refuse_fallback


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server's log on the real standard error, only for a test."""
    root = logging.getLogger()
    with os.fdopen(2, "w", buffering=1, closefd=False) as stderr, monkeypatch.context() as patch:
        patch.setattr(root, "handlers", [])
        patch.setattr(root, "level", root.level)
        patch.setattr("sys.stderr", stderr)
        configure_log()
        yield


@pytest.mark.usefixtures("log")
def test_native_lines_become_events_and_our_own_stay(capfd: pytest.CaptureFixture[str]) -> None:
    own = b'{"time":"2026-01-01T00:00:00.000+00:00","level":"info","event":"request"}'
    with logged_native_output():
        os.write(
            2, b"INFO: Created a delegate\n\x1b[1;31mERROR: no device\x1b[m\n\n" + own + b"\nlast \xff line"
        )
        assert capfd.readouterr().err == ""
    os.write(2, b"after\n")
    *lines, last = capfd.readouterr().err.splitlines()
    assert last == "after"
    events = [json.loads(line) for line in lines]
    assert [(event["event"], event.get("text")) for event in events] == [
        ("runtime output", "ERROR: no device"),
        ("request", None),
        ("runtime output", "last \ufffd line"),
    ]


@pytest.mark.usefixtures("log")
def test_output_is_kept_when_the_block_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with logged_native_output():
            os.write(2, b"this is why\n")
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        fail()
    assert json.loads(capfd.readouterr().err)["text"] == "this is why"


@pytest.mark.usefixtures("log")
def test_blocks_of_several_threads_take_turns(capfd: pytest.CaptureFixture[str]) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            with logged_native_output():
                os.write(2, b"line of %d\n" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"after\n")
    *lines, last = capfd.readouterr().err.splitlines()
    assert last == "after"
    assert len([json.loads(line) for line in lines]) == 80


def test_what_the_cpu_would_compute_is_counted() -> None:
    refuse_fallback("NPU", 3, [])
    with pytest.raises(StartError) as refused:
        refuse_fallback("NPU", 5, ["Where", "Loop", "Where"])
    assert refused.value.reason is Reason.PROVIDER_MISMATCH
    assert refused.value.message == (
        "NPU computes only 2 of the model's 5 operations, the CPU would compute 2 Where, 1 Loop: "
        "accept that with --allow-cpu-fallback, or convert the model"
    )


def test_a_long_list_of_operations_ends() -> None:
    with pytest.raises(StartError) as refused:
        refuse_fallback("NPU", 12, [f"Op{number}" for number in range(9)])
    assert "1 Op7, …: accept" in refused.value.message
