"""The commands against a registry of a site's own certificate authority, which the system does not know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.signing.keys import generate_key_pair
from support.certificate import write_certificate
from support.command_line import Ended, edgemodel
from support.registry import RegistryServer, start_registry
from support.signed_images import push_image


@dataclass(frozen=True)
class Site:
    """A registry with TLS, and the certificate of its authority."""

    registry: RegistryServer
    authority: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    certificate, key = write_certificate(folder)
    with start_registry(folder / "registry", tls=(certificate, key)) as server:
        yield Site(server, certificate)


@pytest.fixture
async def image(site: Site, own_name: str) -> Reference:
    async with new_session(authorities=site.authority.read_text()) as session:
        name = Reference(site.registry.host, f"tls/{own_name}", tag="1")
        return (await push_image(RegistryClient(session), name)).index


async def test_a_site_s_own_registry_is_signed_in_verified_and_inspected(
    site: Site, image: Reference, tmp_path: Path
) -> None:
    async def command(*arguments: str) -> Ended:
        ended = await edgemodel(
            *(*arguments, "--registry-cacert", str(site.authority), str(image)), env={"COSIGN_PASSWORD": ""}
        )
        assert ended.code == 0, ended.err
        return ended

    pair = generate_key_pair(b"")
    (tmp_path / "cosign.key").write_bytes(pair.private_pem)
    (tmp_path / "cosign.pub").write_bytes(pair.public_pem)
    await command("sign", "--key", str(tmp_path / "cosign.key"))
    assert "trusted" in (await command("verify", "--key", str(tmp_path / "cosign.pub"))).out
    assert str(image.digest) in (await command("inspect", "--json")).out


async def test_without_its_authority_the_registry_counts_for_nothing(image: Reference) -> None:
    refused = await edgemodel("inspect", str(image))
    assert refused.code != 0
    assert "certificate" in refused.err


async def test_a_file_without_a_certificate_is_refused(image: Reference, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    refused = await edgemodel("inspect", "--registry-cacert", str(tmp_path / "empty.pem"), str(image))
    assert refused.code == 2
    assert "-----BEGIN CERTIFICATE-----" in refused.err
