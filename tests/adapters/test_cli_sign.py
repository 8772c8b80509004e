"""`edgemodel sign`: keys, commands and attestations from a shell, against a real registry."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgemodel_operator.oci.descriptor import OCI_INDEX
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.demand import Authority, Demand, WantedAttestation
from edgemodel_operator.signing.keys import KeyKind, PublicKey, generate_key_pair, load_public_key
from edgemodel_operator.signing.stored import read_signatures
from edgemodel_operator.signing.verdict import Format, Trusted, Verdict
from edgemodel_operator.signing.verify import verify_image
from support.command_line import Ended, edgemodel
from support.packages import install_package
from support.registry import RegistryServer
from support.signed_images import PushedImage, push_image

PASSWORD = "marked-password"
SPDX = "https://spdx.dev/Document"


@dataclass(frozen=True)
class Desk:
    """A folder with files, and an image in the registry under a tag of its own."""

    folder: Path
    registry: RegistryServer
    client: RegistryClient
    image: PushedImage
    tagged: Reference

    def key(self, name: str, kind: KeyKind = KeyKind.ECDSA_P256, password: str = PASSWORD) -> str:
        """Make a key pair in files, and give the path of the private one."""
        pair = generate_key_pair(password.encode(), kind)
        (self.folder / f"{name}.key").write_bytes(pair.private_pem)
        (self.folder / f"{name}.pub").write_bytes(pair.public_pem)
        return str(self.folder / f"{name}.key")

    def public(self, name: str) -> PublicKey:
        return load_public_key((self.folder / f"{name}.pub").read_bytes())

    async def sign(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        given = {"COSIGN_PASSWORD": PASSWORD, **(env or {})}
        return await edgemodel("sign", "--plain-http", self.registry.host, *arguments, env=given)

    async def verdict(self, *names: str, threshold: int = 1, attested: str = "") -> Verdict:
        wanted = (WantedAttestation("wanted", attested),) if attested else ()
        authorities = tuple(Authority(name, (self.public(name),)) for name in names)
        demand = Demand(authorities, threshold=threshold, attestations=wanted, platforms_signed=not attested)
        return await verify_image(self.client, self.image.index, demand)


@pytest.fixture
async def desk(tmp_path: Path, client: RegistryClient, registry: RegistryServer, own_name: str) -> Desk:
    name = Reference(registry.host, f"desk/{own_name}", tag="1")
    image = await push_image(client, name)
    index = await client.get_manifest(image.index)
    await client.put_manifest(name, index.body, OCI_INDEX)
    return Desk(tmp_path, registry, client, image, name)


async def test_an_image_is_signed_by_its_tag_and_named_by_its_digest(desk: Desk) -> None:
    signed = await desk.sign("--key", desk.key("plant"), str(desk.tagged))
    assert signed.code == 0, signed.err
    assert signed.out == f"{desk.image.index}\n"
    for digest in desk.image.digests:
        assert digest in signed.err
    assert isinstance(await desk.verdict("plant"), Trusted)
    again = await desk.sign("--key", str(desk.folder / "plant.key"), "--json", str(desk.image.index))
    assert again.json()["image"] == str(desk.image.index)
    assert [one["added"] for one in again.json()["signed"]] == [[], [], []]


@pytest.mark.parametrize(
    ("name", "formats"), [("Legacy", {Format.LEGACY}), ("Bundle", {Format.BUNDLE}), ("Both", set(Format))]
)
async def test_only_the_wanted_format_is_written(desk: Desk, name: str, formats: set[Format]) -> None:
    await desk.sign("--key", desk.key("plant"), "--format", name, str(desk.tagged))
    for kind in Format:
        found = await read_signatures(desk.client, desk.image.index, desk.image.digest, kind)
        assert bool(found.candidates) is (kind in formats)


async def test_in_the_overlap_of_a_rotation_both_keys_sign_everything(desk: Desk) -> None:
    old, new = desk.key("old"), desk.key("new", KeyKind.ED25519)
    signed = await desk.sign("--key", old, "--key", new, str(desk.tagged))
    assert signed.code == 0, signed.err
    assert isinstance(await desk.verdict("old", "new", threshold=2), Trusted)
    for kind in Format:
        found = await read_signatures(desk.client, desk.image.index, desk.image.digest, kind)
        assert len(found.candidates) == 2


async def test_a_document_is_attested_beside_the_signature(desk: Desk) -> None:
    (desk.folder / "sbom.json").write_text('{"spdxVersion": "SPDX-2.3"}')
    key, document = desk.key("plant"), desk.folder / "sbom.json"
    signed = await desk.sign(
        *("--key", key, "--attestation", f"spdxjson={document}"),
        *("--attestation", f"https://plant-a.local/test={document}", "--json", str(desk.tagged)),
    )
    assert signed.json()["attested"] == ["Bundle", "Legacy"]
    assert isinstance(await desk.verdict("plant", attested=SPDX), Trusted)
    assert isinstance(await desk.verdict("plant", attested="https://plant-a.local/test"), Trusted)


async def test_case_14_a_wrong_password_is_said_and_shown_nowhere(desk: Desk) -> None:
    key = desk.key("plant")
    signed = await desk.sign("--key", key, str(desk.tagged), env={"COSIGN_PASSWORD": "marked-wrong"})
    assert signed.code == 2
    assert "password does not open" in signed.err
    assert "marked" not in f"{signed.out} {signed.err}"
    unsigned = await desk.verdict("plant")
    assert not isinstance(unsigned, Trusted)


async def test_what_cannot_be_signed_is_explained(desk: Desk) -> None:
    key = desk.key("plant")
    missing = await desk.sign("--key", key, str(desk.tagged.with_tag("2")))
    assert missing.code == 1
    assert "does not exist" in missing.err
    folder = await desk.sign("--key", key, f"oci:{desk.folder}")
    assert folder.code == 2
    assert "registries" in folder.err
    away = await edgemodel(
        *("sign", "--plain-http", "127.0.0.1:1", "--key", key, "127.0.0.1:1/a:1"),
        env={"COSIGN_PASSWORD": PASSWORD},
    )
    assert away.code == 3, away.err


def openssl_signer(folder: Path, name: str, curve: str = "P-256") -> tuple[str, str]:
    """Make a key that only a script can use; gives the command and the file of the public key."""
    private, public, script = folder / f"{name}.pem", folder / f"{name}.pub", folder / f"sign-{name}"
    made = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-out"]
    subprocess.run([*made, str(private)], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    script.write_text(
        "#!/bin/sh\n# The digest comes on standard input, and goes where the key is.\n"
        f"openssl pkeyutl -sign -inkey '{private}' -pkeyopt digest:sha256 | base64\n"
    )
    script.chmod(0o700)
    return str(script), str(public)


async def test_a_command_signs_beside_a_key_and_never_sees_its_password(desk: Desk) -> None:
    command, public = openssl_signer(desk.folder, "module")
    seen = desk.folder / "environment"
    wrapped = desk.folder / "wrapped"
    wrapped.write_text(f"#!/bin/sh\nenv > {seen}\nexec {command}\n")
    wrapped.chmod(0o700)
    arguments = ("--key", desk.key("plant"), "--signer-command", str(wrapped), "--public-key", public)
    signed = await desk.sign(*arguments, str(desk.tagged))
    assert signed.code == 0, signed.err
    assert isinstance(await desk.verdict("plant", "module", threshold=2), Trusted)
    assert PASSWORD not in seen.read_text()
    # Its signatures differ each time, and still one is enough.
    again = await desk.sign(*arguments, "--json", str(desk.tagged))
    assert [one["added"] for one in again.json()["signed"]] == [[], [], []]


async def test_a_command_with_another_key_signs_nothing(desk: Desk) -> None:
    command, _ = openssl_signer(desk.folder, "module")
    _, other = openssl_signer(desk.folder, "other")
    signed = await desk.sign("--signer-command", command, "--public-key", other, str(desk.tagged))
    assert signed.code == 1
    assert "does not verify" in signed.err
    found = await read_signatures(desk.client, desk.image.index, desk.image.digest, Format.BUNDLE)
    assert not found.candidates


def module_signer(folder: Path) -> tuple[str, str, dict[str, str]]:
    """Make a key in a (simulated) hardware module; gives command, public key, and what the command needs."""
    install_package("softhsm2-util", "softhsm2")
    install_package("pkcs11-tool", "opensc")
    tokens, config, script = folder / "tokens", folder / "softhsm2.conf", folder / "sign"
    tokens.mkdir()
    config.write_text(f"directories.tokendir = {tokens}\n")
    settings = {"SOFTHSM2_CONF": str(config), "PIN": "1234"}
    tool = ["pkcs11-tool", "--module", "/usr/lib/softhsm/libsofthsm2.so", "--token-label", "plant"]
    login = [*tool, "--login", "--pin", "env:PIN", "--label", "images"]
    der, public, made = folder / "module.der", folder / "module.pub", folder / "signature"
    for command in (
        ["softhsm2-util", "--init-token", "--free", "--label", "plant", "--so-pin", "5678", "--pin", "1234"],
        [*login, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "01"],
        [*tool, "--label", "images", "--read-object", "--type", "pubkey", "--output-file", str(der)],
        ["openssl", "pkey", "-pubin", "-inform", "DER", "-in", str(der), "-out", str(public)],
    ):
        subprocess.run(command, env={**os.environ, **settings}, check=True, capture_output=True)
    signing = f"{' '.join(login)} --sign --mechanism ECDSA --signature-format openssl"
    script.write_text(
        f"#!/bin/sh\n{signing} --input-file /dev/stdin --output-file {made} >&2 && base64 {made}\n"
    )
    script.chmod(0o700)
    return str(script), str(public), settings


async def test_a_key_in_a_hardware_module_signs_through_pkcs11(desk: Desk) -> None:
    command, public, env = await asyncio.to_thread(module_signer, desk.folder)
    signed = await desk.sign("--signer-command", command, "--public-key", public, str(desk.tagged), env=env)
    assert signed.code == 0, signed.err
    assert isinstance(await desk.verdict("module"), Trusted)


async def test_registry_logins_come_from_docker(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {desk.registry.host: {"auth": "broken"}}}))
    signed = await desk.sign(
        "--key", desk.key("plant"), str(desk.tagged), env={"DOCKER_CONFIG": str(tmp_path)}
    )
    assert signed.code == 2, signed.err
