"""OCI sources that cost much: layers without end, and registries that hardly send anything."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgemodel_operator.api.source import OciFile, OciSource, Source
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.archives import extract_file
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import FetchedSource
from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.oci.descriptor import OCI_LAYER_TAR
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import RetryPolicy
from support.archives import make_tar
from support.artifacts import artifact, push
from support.build import LOOPBACK, sha256
from support.registry import FaultyRegistry, RegistryServer

MODEL = b"weights" * 1000
ONNX = Want((".onnx",), (".data",))
ALLOWED = Allowance(AddressPolicy.parse(allowed=LOOPBACK), 1 << 20, 60)


@pytest.fixture
def ref(registry: RegistryServer, request: pytest.FixtureRequest) -> Reference:
    return parse_reference(f"{registry.host}/oci-search/{sha256(request.node.name.encode())[:12]}:1")


async def fetch(source: OciSource, folder: Path, allowance: Allowance = ALLOWED) -> FetchedSource:
    access = SourceAccess(plain_http=(source.reference.partition("/")[0],))
    return await fetch_source(Source(oci=source), ONNX, folder, allowance, access)


async def test_layers_that_were_searched_do_not_pile_up(
    client: RegistryClient, ref: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many layers at most the one in which the model was found stays, for its weights."""
    most = 0

    def extract(archive: Path, *rest: Any) -> list[str]:
        nonlocal most
        most = max(most, len([path for path in tmp_path.iterdir() if path.name.startswith("sha256-")]))
        return extract_file(archive, *rest)

    monkeypatch.setattr("edgemodel_operator.build.sources.oci.extract_file", extract)
    contents = [make_tar((f"notes-{number}.txt", b"-")) for number in range(6)]
    contents[3] = make_tar(("line.onnx", MODEL))
    contents[1] = make_tar(("line.data", b"tensors"))
    await push(client, ref, [(content, OCI_LAYER_TAR, "") for content in contents])
    source = OciSource(reference=str(ref), path="line.onnx", weights=OciFile(path="line.data"))
    fetched = await fetch(source, tmp_path)
    assert [file.name for file in fetched.files] == ["line.onnx", "line.data"]
    assert most == 2
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


async def test_a_search_through_endless_layers_is_refused(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    """Each layer is as large as a model may be; all of them together are not."""
    layers = [make_tar((f"{number}.txt", bytes(50_000))) for number in range(8)]
    await push(client, ref, [(layer, OCI_LAYER_TAR, "") for layer in layers])
    source = OciSource(reference=f"{faulty.host}/{ref.repository}:{ref.tag}", path="line.onnx")
    with pytest.raises(BuildError) as caught:
        await fetch(source, tmp_path, replace(ALLOWED, max_bytes=len(layers[0])))
    failure = caught.value.failure
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_TOO_LARGE, False)
    assert "bytes of layers to be searched" in failure.message
    assert len(faulty.requests("GET", "/blobs/")) == 4
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("silent", [False, True], ids=["drips", "is silent"])
async def test_a_registry_that_hardly_sends_anything(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference, tmp_path: Path, *, silent: bool
) -> None:
    await push(client, ref, artifact(("model.onnx", MODEL)))

    async def drip(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" not in request.path:
            return None
        response = web.StreamResponse(headers={"Content-Length": str(len(MODEL))})
        await response.prepare(request)
        while not silent:
            await response.write(b"w")
            await asyncio.sleep(0.01)
        await asyncio.sleep(3600)
        return response

    faulty.faults.append(drip)
    source = OciSource(reference=f"{faulty.host}/{ref.repository}:{ref.tag}")
    impatient = replace(ALLOWED, idle_seconds=0.3, retry=RetryPolicy(attempts=1))
    with pytest.raises(BuildError) as caught:
        await fetch(source, tmp_path, impatient)
    failure = caught.value.failure
    assert failure.reason is (Reason.SOURCE_UNAVAILABLE if silent else Reason.SOURCE_TIMEOUT)
    assert ("broke off" if silent else "less than 1024 bytes per second") in failure.message
