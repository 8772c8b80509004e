"""The worker as a Job runs it: request, logins and volume as files, the answer as a note, signals obeyed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.api.image import ImageSpec
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.build.failures import BuildFailure, Reason, Step
from edgemodel_operator.build.jobs.answer import read_line, read_note
from edgemodel_operator.build.request import BuildRequest, BuildResult, Progress
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.build import make_onnx, missing_parts, sha256
from support.images import push_index
from support.registry import RegistryServer, free_port

MODEL = make_onnx()
PASSWORD = "not-for-anybody"


@pytest.fixture
async def job_request(client: RegistryClient, registry: RegistryServer) -> BuildRequest:
    """Give the request for a model on a volume, as the operator writes it: without any login."""
    ref = parse_reference(f"{registry.host}/runtimes/cpu:1")
    runtime = ref.with_digest((await push_index(client, ref)).digest)
    pvc = {"claimName": "models", "path": "line/model.onnx", "sha256": sha256(MODEL)}
    return BuildRequest(
        model_name="line",
        model=ModelSpec.model_validate({"format": "ONNX", "version": "7", "source": {"pvc": pvc}}),
        image=ImageSpec(repository=f"{registry.host}/models/job-worker"),
        runtime=str(runtime),
        plain_http=(registry.host,),
    )


class Pod:
    """The folders that the kubelet makes for the container of a Job."""

    def __init__(self, folder: Path, request: BuildRequest, model: bytes | None = MODEL) -> None:
        self.folder = folder
        self.note = folder / "termination-log"
        login = {"auths": {"registry.plant-a.local": {"username": "plant", "password": PASSWORD}}}
        for path, content in {
            "mnt/request/request.json": request.model_dump_json(by_alias=True).encode(),
            "mnt/registries/0/.dockerconfigjson": json.dumps(login).encode(),
            "mnt/claims/models/line/model.onnx": model,
        }.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                (folder / path).write_bytes(content)
        (folder / "work").mkdir()

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start the container's program."""
        command = [sys.executable, "-m", "edgemodel_operator", "build", "--make", "image"]
        folders = {"--mounts": "mnt", "--work": "work", "--note": "termination-log"}
        command += [word for name, path in folders.items() for word in (name, str(self.folder / path))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self) -> tuple[int, list[Any], object]:
        """Run it to its end; give status, the lines of the protocol in its log, and the note."""
        with self.running() as process:
            log, _ = process.communicate(timeout=60)
        assert PASSWORD.encode() not in log
        lines = [message for line in log.splitlines() if (message := read_line(line)) is not None]
        return process.returncode, lines, read_note(self.note.read_text())


async def test_a_model_on_a_mounted_volume_becomes_an_image(
    client: RegistryClient, job_request: BuildRequest, tmp_path: Path
) -> None:
    status, lines, note = Pod(tmp_path, job_request).run()
    assert status == 0
    assert isinstance(note, BuildResult)
    assert lines[-1] == note
    assert note.build_key == job_request.build_key
    assert await missing_parts(client, parse_reference(note.image)) == []
    assert {line.step for line in lines if isinstance(line, Progress)} >= {Step.DOWNLOAD, Step.PUSH}


def test_a_file_that_is_not_there_is_the_answer(job_request: BuildRequest, tmp_path: Path) -> None:
    status, lines, note = Pod(tmp_path, job_request, model=None).run()
    assert status == 1
    assert isinstance(note, BuildFailure)
    assert lines[-1] == note
    assert (note.reason, note.step) == (Reason.SOURCE_NOT_FOUND, Step.DOWNLOAD)
    assert "line/model.onnx" in note.message


def test_a_request_that_cannot_be_read_is_an_answer_too(job_request: BuildRequest, tmp_path: Path) -> None:
    pod = Pod(tmp_path, job_request)
    (tmp_path / "mnt/request/request.json").write_text("{")
    status, _, note = pod.run()
    assert status == 1
    assert isinstance(note, BuildFailure)
    assert note.reason is Reason.INVALID_REQUEST


def test_the_worker_ends_when_its_pod_is_deleted(job_request: BuildRequest, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    image = job_request.image.model_copy(update={"repository": f"{nowhere}/models/line"})
    changed = job_request.model_copy(
        update={"image": image, "plain_http": (*job_request.plain_http, nowhere)}
    )
    with Pod(tmp_path, changed).running() as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it is at work: a registry that is away is asked for a while
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
