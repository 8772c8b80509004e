"""The registry client over TLS: only certificates of a trusted authority, and plain HTTP only on request."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.errors import ProtocolError, RegistryError
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from support.registry import RegistryServer, free_port, start_registry

BLOB = Descriptor.of("application/octet-stream", b"weights")


def _issue(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1; returns the files of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return _issue(tmp_path_factory.mktemp("certificate"))


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
    async with new_session(ca_file=certificate[0]) as session:
        client = RegistryClient(session)
        await client.put_blob(ref, b"weights", BLOB)
        assert await client.get_blob(ref, BLOB.digest, max_bytes=7) == b"weights"


async def test_an_unknown_authority_is_refused_at_once(
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
        async with new_session(ca_file=certificate[0]) as session:
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
