"""Both directions with the real cosign, of the line 2.6 and the line 3.1, on registries of both kinds.

Nothing here reaches beyond the registry: signing is told to use no services, verifying to expect no log.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.errors import KeyLoadError
from edgemodel_operator.signing.keys import (
    KeyKind,
    KeyPair,
    LocalKey,
    generate_key_pair,
    load_private_key,
    load_public_key,
)
from edgemodel_operator.signing.sign import BOTH, sign_image
from edgemodel_operator.signing.stored import read_signatures
from edgemodel_operator.signing.verdict import Format, Reason, Trusted, Untrusted
from edgemodel_operator.signing.verify import verify_image
from support.cosign import PASSWORD, VERSIONS, Cosign, bound, cosign_of
from support.signed_images import PushedImage, push_image

LEGACY, BUNDLE = frozenset({Format.LEGACY}), frozenset({Format.BUNDLE})


@pytest.fixture(scope="session")
def pair() -> KeyPair:
    return generate_key_pair(PASSWORD.encode())


@pytest.fixture(scope="session")
def key(pair: KeyPair) -> LocalKey:
    return load_private_key(pair.private_pem, PASSWORD.encode())


@pytest.fixture
def plant(key: LocalKey) -> list[Authority]:
    return [Authority("plant", (key.public_key,))]


@pytest.fixture
def cosign_v2(tmp_path: Path, pair: KeyPair) -> Cosign:
    return cosign_of("cosign-v2", tmp_path, pair)


@pytest.fixture
def cosign_v3(tmp_path: Path, pair: KeyPair) -> Cosign:
    return cosign_of("cosign-v3", tmp_path, pair)


@pytest.fixture(params=VERSIONS)
def cosign(request: pytest.FixtureRequest, tmp_path: Path, pair: KeyPair) -> Cosign:
    return cosign_of(request.param, tmp_path, pair)


def demand(*authorities: Authority, any_repository: bool = False, platforms_signed: bool = False) -> Demand:
    return Demand(authorities, any_repository=any_repository, platforms_signed=platforms_signed)


@pytest.fixture
async def image(registry_client: RegistryClient, host: str, own_name: str) -> PushedImage:
    return await push_image(registry_client, Reference(host, f"interop/{own_name}"))


async def test_cosign_reads_our_key_file(cosign: Cosign, pair: KeyPair) -> None:
    (cosign.folder / "older.key").write_bytes(pair.private_pem.replace(b"SIGSTORE", b"COSIGN"))
    for name in ("cosign.key", "older.key"):
        ran = await cosign.run("public-key", "--key", name)
        assert pair.public_pem.decode().strip() in ran.said


async def test_we_read_the_key_files_of_cosign(cosign: Cosign) -> None:
    await cosign.run("generate-key-pair", "--output-key-prefix", "theirs")
    pem = (cosign.folder / "theirs.key").read_bytes()
    public = load_public_key((cosign.folder / "theirs.pub").read_bytes())
    assert load_private_key(pem, PASSWORD.encode()).public_key == public


@pytest.mark.parametrize("kind", KeyKind)
async def test_case_17_cosign_reads_our_keys_of_every_kind_and_verifies_what_they_sign(
    cosign: Cosign, registry_client: RegistryClient, image: PushedImage, kind: KeyKind
) -> None:
    made = generate_key_pair(PASSWORD.encode(), kind)
    (cosign.folder / "made.key").write_bytes(made.private_pem)
    ran = await cosign.run("public-key", "--key", "made.key")
    assert made.public_pem.decode().strip() in ran.said
    await sign_image(
        registry_client, image.children[0], [load_private_key(made.private_pem, PASSWORD.encode())]
    )
    (cosign.folder / "cosign.pub").write_bytes(made.public_pem)
    await cosign.verify(image.children[0], *await cosign.empty_root())


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (("EC", "ec_paramgen_curve:P-256"), KeyKind.ECDSA_P256),
        (("EC", "ec_paramgen_curve:P-384"), KeyKind.ECDSA_P384),
        (("RSA", "rsa_keygen_bits:3072"), KeyKind.RSA),
    ],
)
async def test_case_14_we_read_keys_that_cosign_imported(
    cosign: Cosign, options: tuple[str, str], kind: KeyKind
) -> None:
    algorithm, option = options
    made = ["openssl", "genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", "plain.pem"]
    process = await asyncio.create_subprocess_exec(
        *made, cwd=cosign.folder, stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    await cosign.run("import-key-pair", "--key", "plain.pem", "--output-key-prefix", "imported")
    pem, public = ((cosign.folder / f"imported.{end}").read_bytes() for end in ("key", "pub"))
    key = load_private_key(pem, PASSWORD.encode())
    assert key.public_key.kind is kind
    assert load_public_key(public) == key.public_key
    older = pem.replace(b"ENCRYPTED SIGSTORE", b"ENCRYPTED COSIGN")
    assert load_private_key(older, PASSWORD.encode()).public_key == key.public_key
    with pytest.raises(KeyLoadError, match="does not open"):
        load_private_key(pem, b"another")


async def test_case_17_cosign_3_verifies_what_we_sign(
    cosign_v3: Cosign, registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    await sign_image(registry_client, image.index, [key])
    for reference in (image.index, *image.children):
        await cosign_v3.verify(reference)


async def test_case_17_cosign_2_verifies_our_legacy_signatures(
    cosign_v2: Cosign, registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    await sign_image(registry_client, image.index, [key], formats=LEGACY)
    for reference in (image.index, *image.children):
        await cosign_v2.verify(reference)


async def test_case_17_cosign_2_verifies_both_formats_given_an_empty_trusted_root(
    cosign_v2: Cosign, registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    await sign_image(registry_client, image.index, [key], formats=BOTH)
    root = await cosign_v2.empty_root()
    for reference in (image.index, *image.children):
        await cosign_v2.verify(reference, *root)


async def test_case_17_cosign_3_verifies_each_format_alone(
    cosign_v3: Cosign, registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    await sign_image(registry_client, image.children[0], [key], formats=LEGACY)
    await sign_image(registry_client, image.children[1], [key], formats=BUNDLE)
    await cosign_v3.verify(image.children[0])
    await cosign_v3.verify(image.children[1])


async def test_cosign_refuses_our_signatures_by_another_key(
    cosign: Cosign, registry_client: RegistryClient, image: PushedImage, pair: KeyPair
) -> None:
    stranger_pair = generate_key_pair(b"")
    stranger = load_private_key(stranger_pair.private_pem, b"")
    await sign_image(registry_client, image.children[0], [stranger])
    root = await cosign.empty_root()
    refused = await cosign.verify(image.children[0], *root, status=None)
    assert refused.status != 0
    (cosign.folder / "cosign.pub").write_bytes(stranger_pair.public_pem)
    await cosign.verify(image.children[0], *root)


async def test_case_17_we_verify_what_cosign_2_signs(
    cosign_v2: Cosign, registry_client: RegistryClient, image: PushedImage, plant: list[Authority]
) -> None:
    await cosign_v2.sign(image.index, "--recursive")
    verdict = await verify_image(registry_client, image.index, demand(*plant, platforms_signed=True))
    assert isinstance(verdict, Trusted)
    assert all(one.signatures[0].format is Format.LEGACY for one in verdict.evidence)
    assert all(one.signatures[0].binds_repository for one in verdict.evidence)


async def test_case_17_we_verify_what_cosign_3_signs(
    cosign_v3: Cosign, registry_client: RegistryClient, image: PushedImage, plant: list[Authority]
) -> None:
    await cosign_v3.sign(image.index, "--recursive", *bound(image.index))
    verdict = await verify_image(registry_client, image.index, demand(*plant, platforms_signed=True))
    assert isinstance(verdict, Trusted)
    assert all(one.signatures[0].format is Format.BUNDLE for one in verdict.evidence)
    assert all(one.signatures[0].binds_repository for one in verdict.evidence)


async def test_case_17_a_bundle_of_cosign_that_names_no_repository_counts_only_where_copies_do(
    cosign_v3: Cosign, registry_client: RegistryClient, image: PushedImage, plant: list[Authority]
) -> None:
    await cosign_v3.sign(image.index)
    refused = await verify_image(registry_client, image.index, demand(*plant))
    assert isinstance(refused, Untrusted)
    assert refused.reason is Reason.OTHER_REPOSITORY
    verdict = await verify_image(registry_client, image.index, demand(*plant, any_repository=True))
    assert isinstance(verdict, Trusted)
    assert not verdict.evidence[0].signatures[0].binds_repository


async def test_case_05_an_attestation_by_cosign_is_no_signature(
    cosign_v3: Cosign, registry_client: RegistryClient, image: PushedImage, plant: list[Authority]
) -> None:
    (cosign_v3.folder / "predicate.json").write_text("{}")
    await cosign_v3.attest(image.children[0], "slsaprovenance1", "predicate.json")
    verdict = await verify_image(registry_client, image.children[0], demand(*plant))
    assert isinstance(verdict, Untrusted)
    assert verdict.reason is Reason.ONLY_ATTESTATION


async def test_signatures_of_cosign_and_ours_live_side_by_side(
    cosign: Cosign, registry_client: RegistryClient, image: PushedImage, plant: list[Authority]
) -> None:
    ours_pair = generate_key_pair(b"")
    ours = load_private_key(ours_pair.private_pem, b"")
    child = image.children[0]
    await sign_image(registry_client, child, [ours])
    await cosign.sign(child, *bound(child))
    again = load_private_key(generate_key_pair(b"").private_pem, b"")
    await sign_image(registry_client, child, [again])

    authorities = [
        *plant,
        Authority("ours", (ours.public_key,)),
        Authority("again", (again.public_key,)),
    ]
    verdict = await verify_image(registry_client, child, demand(*authorities))
    assert isinstance(verdict, Trusted)
    assert set(verdict.by) == {"plant", "ours", "again"}
    assert child.digest is not None
    counts = {
        kind: len((await read_signatures(registry_client, child, child.digest, kind)).candidates)
        for kind in Format
    }
    assert sum(counts.values()) == 5
    (cosign.folder / "cosign.pub").write_bytes(ours_pair.public_pem)
    await cosign.verify(child, *await cosign.empty_root())
