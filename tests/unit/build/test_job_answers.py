"""Builds in Jobs: what the worker inside is asked, and how its answer comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason, Step
from edgemodel_operator.build.jobs.answer import LongAnswer, is_answer, read_line, read_note, write_note
from edgemodel_operator.build.jobs.mounts import complete_request
from edgemodel_operator.build.protocol import encode_message
from edgemodel_operator.build.request import BuildResult, Progress
from support.build_jobs import FAILURE, on_volume, request_of, result, supply
from support.builders import make_model
from support.dockerfiles import write_files

# --- the request, inside ------------------------------------------------------------------------------------


def docker_config(**logins: str) -> str:
    auths = {host: {"username": "plant", "password": password} for host, password in logins.items()}
    return json.dumps({"auths": auths})


def test_what_is_mounted_completes_the_request(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "registries/0/.dockerconfigjson": docker_config(a="old", b="1"),
            "registries/2/.dockerconfigjson": docker_config(c="2"),
            "registries/10/.dockerconfigjson": docker_config(a="new"),
            "secrets/s3/AWS_SECRET_ACCESS_KEY": "key",
            "secrets/s3/..data": "of the kubelet",
        },
    )
    s3 = {"bucket": "models", "key": "m.onnx", "sha256": "b" * 64, "credentialsSecret": {"name": "s3"}}
    request = request_of(supply(make_model().with_("model.source", {"s3": s3})))
    completed = complete_request(request, tmp_path)
    passwords = {host: login.password for host, login in completed.logins().items()}
    assert passwords == {"a": "new", "b": "1", "c": "2"}
    assert completed.source_fields() == {"AWS_SECRET_ACCESS_KEY": b"key"}
    assert completed.build_key == request.build_key


def test_volumes_and_entries_are_found_by_their_names(tmp_path: Path) -> None:
    request = request_of(supply(on_volume()))
    assert complete_request(request, tmp_path).volume == str(tmp_path / "claims" / "models")
    write_files(tmp_path, {"config-maps/entries/m.onnx": "model"})
    source = {"configMap": {"name": "entries", "key": "m.onnx", "sha256": "b" * 64}}
    request = request_of(supply(make_model().with_("model.source", source)))
    assert complete_request(request, tmp_path).config_entries() == {"m.onnx": b"model"}


@pytest.mark.parametrize("content", ["{", None], ids=["broken", "missing"])
def test_a_broken_login_is_named_without_its_content(tmp_path: Path, content: str | None) -> None:
    write_files(tmp_path, {"registries/0/.dockerconfigjson": content} if content else {"registries/0/x": ""})
    request = request_of(supply(on_volume()))
    with pytest.raises(BuildError) as refused:
        complete_request(request, tmp_path)
    assert refused.value.failure.reason is Reason.REGISTRY_DENIED


# --- the answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [result(), FAILURE], ids=["result", "failure"])
def test_an_answer_comes_back_from_the_termination_message(answer: BuildResult | BuildFailure) -> None:
    assert read_note(write_note(answer).decode()) == answer


def test_of_a_long_answer_the_note_names_the_line_in_the_log() -> None:
    answer = result(operators=200)
    note = write_note(answer)
    assert len(note) <= 4096
    named = read_note(note.decode())
    assert isinstance(named, LongAnswer)
    line = encode_message(answer).rstrip()
    assert is_answer(line, named)
    assert not is_answer(line[:-1], named)


@given(st.text())
def test_what_no_worker_wrote_is_no_answer(text: str) -> None:
    assert read_note(text) is None
    assert read_line(text.encode()) is None


def test_progress_is_no_answer() -> None:
    assert read_note(encode_message(Progress(step=Step.PUSH)).decode()) is None
