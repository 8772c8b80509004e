"""The program that containerd starts: it obeys the agent, and without it decides by the record alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.node import client
from edgemodel_operator.oci.reference import parse_reference

DIGEST = f"sha256:{'a' * 64}"
NAME = f"registry.plant-a.local:5000/models/line@{DIGEST}"
COVERED = {"name": "models", "images": [r"registry\.plant\-a\.local:5000/models/.*"], "enforced": True}
NOW = 1_800_000_000.0


def record(**parts: Any) -> dict[str, Any]:
    """Give a record in which one policy covers the image and nothing was verified."""
    return {
        "version": 1,
        "pod": "",
        "own": [],
        "exempt": [],
        "unmatched": "Allow",
        "policies": [{**COVERED, "demand": "d1"}],
        "exceptions": [],
        "verdicts": {},
    } | parts


def exception(**parts: Any) -> dict[str, Any]:
    return {
        "name": "x", "images": [r".*/models/.*"], "policies": [], "from": NOW - 9, "until": NOW + 9
    } | parts  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    path = tmp_path / "edgemodel"
    path.write_text("#!/bin/sh\n")
    return path


def run(state: Path, hook: Path, name: str = NAME, digest: str = DIGEST) -> int:
    return client.main([str(state), str(hook), "-name", name, "-digest", digest, "-stdin-media-type", "x"])


@contextlib.contextmanager
def agent(state: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Answer every question with the same bytes while the block runs; gives the questions."""
    questions: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(state / client.SOCKET))
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        questions.append(connection.recv(4096))
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield questions
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(("allowed", "status"), [(True, 0), (False, 1)])
def test_the_agent_is_obeyed_and_its_reason_printed(
    state: Path, hook: Path, capsys: pytest.CaptureFixture[str], allowed: bool, status: int
) -> None:
    answer = json.dumps({"allowed": allowed, "reason": "because"}).encode() + b"\n"
    with agent(state, answer) as questions:
        assert run(state, hook) == status
    assert json.loads(questions[0]) == {"name": NAME, "digest": DIGEST}
    assert capsys.readouterr().out == "because\n"


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}\n", b'{"allowed": "yes"}\n', b'{"allowed": 1}\n', b"[true]\n", b"\xff\n", b"[" * 9000],
)
def test_an_answer_that_makes_no_sense_is_none(state: Path, hook: Path, answer: bytes) -> None:
    with agent(state, answer):
        assert run(state, hook) == 1
        (state / client.RECORD).write_text(json.dumps(record(policies=[])))
        assert run(state, hook) == 0


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        '{"version": 2}',
        '{"version": 1}',
        '{"version": 1, "own": 5}',
        json.dumps(record())[:-9],
        json.dumps(record(policies=[{"name": "x"}])),
        json.dumps(record(policies=[5])),
        json.dumps(record(verdicts=[])),
        json.dumps(record(policies=[{**COVERED, "images": ["("], "demand": "d"}])),
        "[" * 99999,
    ],
)
def test_without_a_record_that_can_be_read_everything_is_refused(
    state: Path, hook: Path, content: str | None
) -> None:
    if content is not None:
        (state / client.RECORD).write_text(content)
    assert run(state, hook) == 1


@pytest.mark.parametrize(
    ("parts", "allowed"),
    [
        ({}, False),
        ({"verdicts": {NAME: ["d1"]}}, True),
        ({"verdicts": {NAME: ["d0"]}}, False),
        ({"verdicts": {NAME.replace("line", "other"): ["d1"]}}, False),
        ({"policies": [{**COVERED, "demand": ""}], "verdicts": {NAME: [""]}}, False),
        ({"policies": [{**COVERED, "demand": "d1"}, {**COVERED, "demand": "d2"}],
          "verdicts": {NAME: ["d1"]}}, False),
        ({"policies": [{**COVERED, "demand": "d1", "enforced": False}]}, True),
        ({"policies": []}, True),
        ({"policies": [], "unmatched": "Deny"}, False),
        ({"policies": [], "unmatched": "Deny", "exempt": [r".*/models/.*"]}, True),
        ({"own": [NAME]}, True),
        ({"exempt": [r"registry\.plant\-a\.local:5000/models/line"]}, True),
        ({"exceptions": [exception()]}, True),
        ({"exceptions": [exception(policies=["models"])]}, True),
        ({"exceptions": [exception(policies=["others"])]}, False),
        ({"exceptions": [exception(images=[NAME.replace(".", r"\.")])]}, True),
        ({"exceptions": [exception(images=[r".*/else/.*"])]}, False),
        ({"exceptions": [exception(until=NOW)]}, False),
        ({"exceptions": [exception(**{"from": NOW + 1})]}, False),
        ({"policies": [], "unmatched": "Deny", "exceptions": [exception()]}, True),
        ({"policies": [], "unmatched": "Deny", "exceptions": [exception(policies=["models"])]}, False),
    ],
)  # fmt: skip
def test_the_record_decides(parts: dict[str, Any], allowed: bool) -> None:
    assert (client.judge_alone(record(**parts), NAME, DIGEST, NOW) == "") is allowed


def test_two_exceptions_for_a_part_each_do_not_add_up() -> None:
    policies = [{**COVERED, "demand": "d1"}, {**COVERED, "name": "second", "demand": "d2"}]
    halves = [exception(policies=["models"]), exception(policies=["second"])]
    assert client.judge_alone(record(policies=policies, exceptions=halves), NAME, DIGEST, NOW)
    whole = [exception(policies=["models", "second"])]
    assert not client.judge_alone(record(policies=policies, exceptions=whole), NAME, DIGEST, NOW)


def test_a_tag_is_judged_by_the_digest_that_it_means_now() -> None:
    tagged = NAME.partition("@")[0] + ":1"
    known = record(verdicts={NAME: ["d1"]})
    assert not client.judge_alone(known, tagged, DIGEST, NOW)
    assert client.judge_alone(known, tagged, f"sha256:{'b' * 64}", NOW)


_PART = st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True)


@given(
    host=st.sampled_from(["Registry.Plant-a.local:5000", "10.0.0.1", "localhost", "[fd00::1]:5000"]),
    path=st.lists(_PART, min_size=1, max_size=3),
    tag=st.one_of(st.none(), _PART),
    digest=st.booleans(),
)
def test_a_reference_is_read_as_the_agent_reads_it(
    host: str, path: list[str], tag: str | None, digest: bool
) -> None:
    text = "/".join([host, *path]) + (f":{tag}" if tag else "") + (f"@{DIGEST}" if digest else "")
    assert client.repository_of(text) == parse_reference(text).name


def test_while_the_kubelet_knows_the_pod_nothing_is_let_go(state: Path, hook: Path, tmp_path: Path) -> None:
    pod = tmp_path / "pods" / "uid"
    pod.mkdir(parents=True)
    (state / client.RECORD).write_text(json.dumps(record(pod=str(pod))))
    (state / client.ORPHANED).touch()
    os.utime(state / client.ORPHANED, (0, 0))
    assert run(state, hook) == 1
    assert not (state / client.ORPHANED).exists()
    assert hook.exists()


def test_a_pod_that_is_away_for_long_takes_the_program_with_it(
    state: Path, hook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / client.RECORD).write_text(json.dumps(record(pod=str(tmp_path / "gone"))))
    marker = state / client.ORPHANED
    assert run(state, hook) == 1
    began = marker.stat().st_mtime
    assert run(state, hook) == 1
    assert marker.stat().st_mtime == began
    os.utime(marker, (began - client.GRACE_S - 1,) * 2)
    assert run(state, hook) == 0
    assert not hook.exists()
    assert "has left this node" in capsys.readouterr().out


def test_a_clock_that_was_put_back_starts_the_count_anew(state: Path, hook: Path, tmp_path: Path) -> None:
    (state / client.RECORD).write_text(json.dumps(record(pod=str(tmp_path / "gone"))))
    marker = state / client.ORPHANED
    marker.touch()
    os.utime(marker, (marker.stat().st_mtime + 5 * client.GRACE_S,) * 2)
    ahead = marker.stat().st_mtime
    assert run(state, hook) == 1
    assert marker.stat().st_mtime < ahead


def test_without_arguments_nothing_is_allowed(state: Path, hook: Path) -> None:
    (state / client.RECORD).write_text(json.dumps(record(unmatched="Deny")))
    assert client.main([str(state), str(hook)]) == 1


def test_an_agent_that_hangs_is_as_good_as_none(
    state: Path, hook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.02)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(state / client.SOCKET))
        server.listen()
        (state / client.RECORD).write_text(json.dumps(record()))
        assert run(state, hook) == 1
        (state / client.RECORD).write_text(json.dumps(record(verdicts={NAME: ["d1"]})))
        assert run(state, hook) == 0
