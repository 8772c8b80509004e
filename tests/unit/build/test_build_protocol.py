"""The lines between operator and worker, and what never shows in them."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport
from edgemodel_operator.api.image import ImageSpec, PlatformName
from edgemodel_operator.api.model import ModelFormat, ModelSpec
from edgemodel_operator.api.source import HttpSource, Source
from edgemodel_operator.build.failures import BuildFailure, Reason, Step
from edgemodel_operator.build.protocol import (
    InvalidMessage,
    decode_message,
    decode_request,
    encode_message,
    encode_request,
)
from edgemodel_operator.build.request import BuildRequest, BuildResult, Login, Progress

PASSWORD = "correct-horse"
REQUEST = BuildRequest(
    model_name="line-orientation",
    model=ModelSpec(
        format=ModelFormat.ONNX,
        source=Source(http=HttpSource(url="https://models.example.com/m.onnx", sha256="a" * 64)),
        version="7",
    ),
    runtime="registry.example.com/runtimes/cpu@sha256:" + "b" * 64,
    image=ImageSpec(repository="registry.example.com/models/line", platforms=(PlatformName.LINUX_ARM64,)),
    credentials=(Login(host="registry.example.com", username="robot", password=SecretStr(PASSWORD)),),
)
RESULT = BuildResult(
    index_digest="sha256:" + "c" * 64,
    image="registry.example.com/models/line@sha256:" + "c" * 64,
    platforms=("linux/arm64",),
    report=ModelReport(files=(ModelFile(name="m.onnx", sha256="a" * 64, size=17),)),
    build_key=REQUEST.build_key,
    bytes_pushed=99,
    seconds={"Push": 0.5},
)


def test_a_request_arrives_whole() -> None:
    line = encode_request(REQUEST)
    assert line.count(b"\n") == 1
    received = decode_request(line)
    assert received == REQUEST
    assert received.logins()["registry.example.com"].password == PASSWORD


@pytest.mark.parametrize(
    "shown", [repr(REQUEST), str(REQUEST), REQUEST.model_dump_json(), repr(REQUEST.model_dump())]
)
def test_passwords_show_nowhere_else(shown: str) -> None:
    assert PASSWORD not in shown


def test_a_malformed_request_is_described_without_its_content() -> None:
    line = encode_request(REQUEST).replace(b'"password"', b'"pasword"')
    with pytest.raises(InvalidMessage, match="credentials") as caught:
        decode_request(line)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "message",
    [
        Progress(step=Step.DOWNLOAD, done=3, total=None),
        RESULT,
        BuildFailure(reason=Reason.SOURCE_TIMEOUT, message="It took too long.", step=Step.DOWNLOAD),
    ],
)
def test_a_message_arrives_whole(message: Progress | BuildResult | BuildFailure) -> None:
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize(
    "line", [b"", b"Traceback\n", b"[]\n", b'{"other":{}}\n', b'{"result":{"reused":1}}\n']
)
def test_other_lines_are_refused(line: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_message(line)


def test_a_runtime_image_must_be_named_by_digest() -> None:
    with pytest.raises(ValidationError, match="runtime"):
        BuildRequest.model_validate({**REQUEST.to_raw(), "runtime": "registry.example.com/runtimes/cpu:1"})


def test_the_key_ignores_where_things_lie_and_who_may_read_them() -> None:
    elsewhere = Source(http=HttpSource(url="https://elsewhere.example.com/x", sha256="a" * 64))
    moved = REQUEST.model_copy(
        update={
            "model": REQUEST.model.model_copy(update={"source": elsewhere}),
            "image": REQUEST.image.model_copy(update={"repository": "other.example.com/models/line"}),
            "runtime": "mirror.example.com/cpu@sha256:" + "b" * 64,
            "credentials": (),
        }
    )
    assert moved.build_key == REQUEST.build_key
    newer = moved.model.model_copy(update={"version": "8"})
    assert moved.model_copy(update={"model": newer}).build_key != REQUEST.build_key


@pytest.mark.parametrize(
    ("reason", "retryable"),
    [
        (Reason.SOURCE_NOT_FOUND, True),
        (Reason.SOURCE_TIMEOUT, True),
        (Reason.SOURCE_UNAVAILABLE, True),
        (Reason.REGISTRY_UNAVAILABLE, True),
        (Reason.WORKER_DIED, True),
        (Reason.SOURCE_FORBIDDEN_ADDRESS, False),
        (Reason.SOURCE_TOO_LARGE, False),
        (Reason.SOURCE_DIGEST_MISMATCH, False),
        (Reason.INVALID_MODEL, False),
        (Reason.REGISTRY_DENIED, False),
    ],
)
def test_retry_advice(reason: Reason, *, retryable: bool) -> None:
    assert BuildFailure(reason=reason, message="A sentence.").retryable is retryable
