"""The registry client over TLS: only certificates of a trusted authority, and plain HTTP only on request."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from edgemodel_operator.api.source import OciSource, Source
from edgemodel_operator.build.failures import BuildError
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.descriptor import OCI_MANIFEST, Descriptor
from edgemodel_operator.oci.errors import ProtocolError, RegistryError
from edgemodel_operator.oci.image import RuntimeSettings, make_image
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from support.build import make_onnx, make_request, missing_parts, sha256
from support.certificate import write_certificate
from support.images import AMD64, make_layer, push_index
from support.registry import RegistryServer, free_port, start_registry

BLOB = Descriptor.of("application/octet-stream", b"weights")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secured(
    certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryServer]:
    with start_registry(tmp_path_factory.mktemp("secured"), tls=certificate) as server:
        yield server


async def test_a_registry_with_our_own_authority_is_used(
    secured: RegistryServer, certificate: tuple[Path, Path]
) -> None:
    ref = parse_reference(f"{secured.host}/tls/model:1")
    async with new_session(authorities=certificate[0].read_text()) as session:
        client = RegistryClient(session)
        await client.put_blob(ref, b"weights", BLOB)
        assert await client.get_blob(ref, BLOB.digest, max_bytes=7) == b"weights"


async def test_a_build_reads_and_writes_registries_of_our_own_authority(
    secured: RegistryServer, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    """Runtime, source and target lie in one registry that only the configured authority vouches for."""
    authority, model = certificate[0].read_text(), make_onnx()
    artifact = parse_reference(f"{secured.host}/tls/artifact:1")
    async with new_session(authorities=authority) as session:
        client = RegistryClient(session)
        runtime = await push_index(client, parse_reference(f"{secured.host}/tls/runtime:1"))
        layer, blob = make_layer("model.onnx", model)
        image = make_image(AMD64, [layer], RuntimeSettings(entrypoint=["/none"]))
        await client.put_blob(artifact, blob, layer.descriptor)
        await client.put_blob(artifact, image.config, image.config_descriptor)
        await client.put_manifest(artifact, image.manifest, OCI_MANIFEST)
        request = make_request(
            "http://unused.example.com",
            model,
            runtime=f"{secured.host}/tls/runtime@{runtime.digest}",
            repository=f"{secured.host}/tls/built",
            plain_http=(),
            authorities=authority,
        )
        source = Source(oci=OciSource(reference=str(artifact), path="model.onnx", sha256=sha256(model)))
        request = request.model_copy(update={"model": request.model.model_copy(update={"source": source})})
        built = await run_build(request, work_root=tmp_path)
        assert await missing_parts(client, parse_reference(built.image)) == []
    with pytest.raises(BuildError, match="no trusted TLS"):
        await run_build(request.model_copy(update={"authorities": ""}), work_root=tmp_path)


async def test_case_23_an_unknown_authority_is_refused_at_once(
    secured: RegistryServer, http_session: aiohttp.ClientSession
) -> None:
    with pytest.raises(RegistryError, match="no trusted TLS") as raised:
        await RegistryClient(http_session).blob_exists(parse_reference(f"{secured.host}/a:1"), BLOB.digest)
    assert not raised.value.retryable


async def test_a_redirect_from_https_to_http_is_refused(certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async def away(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:9/blob"})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", away)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    try:
        async with new_session(authorities=certificate[0].read_text()) as session:
            ref = parse_reference(f"127.0.0.1:{port}/a:1")
            with pytest.raises(ProtocolError, match="from https to http"):
                await RegistryClient(session).get_blob(ref, BLOB.digest, max_bytes=7)
    finally:
        await runner.cleanup()


async def test_plain_http_is_never_fallen_back_to(
    registry: RegistryServer, http_session: aiohttp.ClientSession
) -> None:
    with pytest.raises(RegistryError, match="no trusted TLS"):
        await RegistryClient(http_session).blob_exists(parse_reference(f"{registry.host}/a:1"), BLOB.digest)
