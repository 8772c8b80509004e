"""Whole builds from every kind of source: the same file gives the same image, wherever it lies."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from edgemodel_operator.api.source import Source
from edgemodel_operator.build.failures import BuildError, Reason, Step
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.descriptor import OCI_EMPTY, OCI_MANIFEST, Descriptor, canonical_json
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.archives import pack
from support.build import SourceServer, make_onnx, make_request, sha256, source_server
from support.images import push_index
from support.registry import RegistryServer
from support.s3_store import ACCESS_KEY, REGION, SECRET_KEY, S3Store, start_store

MODEL = make_onnx()
KINDS = ("http", "s3", "oci", "pvc", "configMap")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with start_store(tmp_path_factory.mktemp("s3")) as store:
        store.make_bucket("models")
        store.put("models", "line/model.onnx", MODEL)
        yield store


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


@pytest.fixture
async def requested(client: RegistryClient, registry: RegistryServer, server: SourceServer) -> BuildRequest:
    """Give the request for the model behind a URL, without a SHA-256."""
    ref = parse_reference(f"{registry.host}/runtimes/cpu:1")
    runtime = str(ref.with_digest((await push_index(client, ref)).digest))
    repository = f"{registry.host}/models/every-source"
    return make_request(server.serve(MODEL), MODEL, runtime=runtime, repository=repository)


async def push_artifact(client: RegistryClient, host: str) -> str:
    """Push the model as ORAS does and give its reference."""
    ref = parse_reference(f"{host}/artifacts/every-source:1")
    layer, config = Descriptor.of("application/octet-stream", MODEL), Descriptor.of(OCI_EMPTY, b"{}")
    await client.put_blob(ref, MODEL, layer)
    await client.put_blob(ref, b"{}", config)
    titled = {**layer.to_json(), "annotations": {"org.opencontainers.image.title": "model.onnx"}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [titled],
    }
    await client.put_manifest(ref, canonical_json(manifest), OCI_MANIFEST)
    return str(ref)


def from_source(request: BuildRequest, source: dict[str, Any], **changes: Any) -> BuildRequest:
    model = request.model.model_copy(update={"source": Source.model_validate(source)})
    return request.model_copy(update={"model": model, **changes})


def in_base64(content: bytes) -> SecretStr:
    return SecretStr(b64encode(content).decode())


async def test_every_kind_of_source_gives_the_same_image(
    client: RegistryClient,
    registry: RegistryServer,
    store: S3Store,
    requested: BuildRequest,
    *,
    tmp_path: Path,
) -> None:
    volume, work = tmp_path / "volume", tmp_path / "work"
    (volume / "line").mkdir(parents=True)
    (volume / "line/model.onnx").write_bytes(MODEL)
    work.mkdir()
    where = {"endpoint": store.endpoint, "region": REGION, "insecure": True}
    keys = {
        "AWS_ACCESS_KEY_ID": in_base64(ACCESS_KEY.encode()),
        "AWS_SECRET_ACCESS_KEY": in_base64(SECRET_KEY.encode()),
    }
    bucket = {"bucket": "models", "key": "line/model.onnx", "credentials_secret": {"name": "s3-reader"}}
    http = requested.model.source.http
    assert http is not None
    requests = {
        "http": from_source(requested, {"http": {"url": http.url, "insecure": True}}),
        "s3": from_source(requested, {"s3": {**where, **bucket}}, source_secret=keys),
        "oci": from_source(
            requested, {"oci": {"reference": await push_artifact(client, registry.host), "path": ""}}
        ),
        "pvc": from_source(
            requested, {"pvc": {"claim_name": "models", "path": "line/model.onnx"}}, volume=str(volume)
        ),
        "configMap": from_source(
            requested,
            {"config_map": {"name": "tiny", "key": "model.onnx"}},
            config_map={"model.onnx": b64encode(MODEL).decode()},
        ),
    }
    assert tuple(requests) == KINDS
    expected = await run_build(requested, work_root=work)
    for kind, request in requests.items():
        result = await run_build(request, work_root=work)
        assert result.index_digest == expected.index_digest, kind
        assert result.bytes_pushed == 0
        assert [file.sha256 for file in result.report.files] == [sha256(MODEL)]
    assert not any(work.iterdir())


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst", "zip"])
async def test_a_model_in_an_archive(
    server: SourceServer, requested: BuildRequest, tmp_path: Path, kind: str
) -> None:
    packed = pack({"line/model.onnx": MODEL, "line/README.md": b"-"}, kind)
    url = server.serve(packed, "/line")
    source = {"http": {"url": url, "insecure": True, "sha256": sha256(packed)}, "archive": {}}
    result = await run_build(from_source(requested, source), work_root=tmp_path)
    assert [file.sha256 for file in result.report.files] == [sha256(packed)]
    assert [tensor.name for tensor in result.report.inputs] == ["x"]


async def test_a_failure_names_its_step_and_no_secret(
    store: S3Store, requested: BuildRequest, tmp_path: Path
) -> None:
    source = {
        "endpoint": store.endpoint,
        "bucket": "models",
        "key": "line/model.onnx",
        "insecure": True,
        "credentials_secret": {"name": "s3-reader"},
    }
    wrong = {
        "AWS_ACCESS_KEY_ID": in_base64(ACCESS_KEY.encode()),
        "AWS_SECRET_ACCESS_KEY": in_base64(b"a-wrong-secret"),
    }
    request = from_source(requested, {"s3": {**source, "region": REGION}}, source_secret=wrong)
    with pytest.raises(BuildError) as caught:
        await run_build(request, work_root=tmp_path)
    failure = caught.value.failure
    assert (failure.reason, failure.step) == (Reason.SOURCE_DENIED, Step.DOWNLOAD)
    assert "a-wrong-secret" not in failure.message
    assert "a-wrong-secret" not in repr(request)
