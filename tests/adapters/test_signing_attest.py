"""Attestations in both formats, on registries of both kinds, read by the real cosign and by us."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.signing import bundle, stored_attestations
from edgemodel_operator.signing.attached import BundlePart, Part, keep_bundles, keep_layers
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.demand import Authority, Demand, PredicateCheck, WantedAttestation
from edgemodel_operator.signing.errors import NotSignable
from edgemodel_operator.signing.keys import KeyPair, LocalKey, PublicKey, generate_key_pair, load_private_key
from edgemodel_operator.signing.sign import BOTH, sign_image
from edgemodel_operator.signing.stored_attestations import ENVELOPE_MEDIA_TYPE, attestation_tag
from edgemodel_operator.signing.verdict import Format, Trusted
from edgemodel_operator.signing.verify import verify_image
from support.cosign import PASSWORD, VERSIONS, Cosign, cosign_of
from support.registry import RegistryServer
from support.signed_images import PushedImage, push_image

SLSA = "https://slsa.dev/provenance/v1"
SPDX = "https://spdx.dev/Document"
_DEFINITION = {"buildType": "https://edgemodel.dev/build/v1", "externalParameters": {"model": "nsfw"}}
_RUN = {"builder": {"id": "https://edgemodel.dev/builder/v1"}}
PROVENANCE = Attestation(SLSA, json.dumps({"buildDefinition": _DEFINITION, "runDetails": _RUN}).encode())
CONTENTS = Attestation(SPDX, json.dumps({"spdxVersion": "SPDX-2.3", "name": "model"}).encode())
LEGACY, BUNDLE = frozenset({Format.LEGACY}), frozenset({Format.BUNDLE})


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return generate_key_pair(PASSWORD.encode())


@pytest.fixture(scope="module")
def key(pair: KeyPair) -> LocalKey:
    return load_private_key(pair.private_pem, PASSWORD.encode())


@pytest.fixture
async def image(registry_client: RegistryClient, host: str, own_name: str) -> PushedImage:
    return await push_image(registry_client, Reference(host, f"attested/{own_name}"))


@pytest.fixture(params=VERSIONS)
def cosign(request: pytest.FixtureRequest, tmp_path: Path, pair: KeyPair) -> Cosign:
    return cosign_of(request.param, tmp_path, pair)


async def subject_of(client: RegistryClient, image: Reference) -> Descriptor:
    found = await client.head_manifest(image)
    assert found is not None
    return found


async def stored(client: RegistryClient, image: Reference) -> tuple[list[bytes], list[bytes]]:
    """Return the statements that are stored beside an image: those of `.att` layers and those of bundles."""
    assert image.digest is not None
    envelopes = []
    tag = image.with_tag(attestation_tag(image.digest))
    if await client.head_manifest(tag) is not None:
        for layer in (await client.get_manifest(tag)).json()["layers"]:
            blob = await client.get_blob(image, layer["digest"], max_bytes=10**7)
            envelopes.append(base64.b64decode(json.loads(blob)["payload"]))
    bundles = []
    for referrer in await client.list_referrers(image, image.digest):
        manifest = await client.get_manifest(image.with_digest(referrer.digest))
        where = bundle.parse_bundle_manifest(manifest.body)
        assert where is not None
        parsed = bundle.parse_bundle(await client.get_blob(image, where.digest, max_bytes=10**7))
        assert parsed is not None
        bundles.append(parsed.payload)
    return envelopes, bundles


async def test_a_statement_names_its_image_its_repository_and_nothing_else(
    registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    subject = await subject_of(registry_client, image.index)
    added = await attest_digest(registry_client, image.index, subject, [PROVENANCE], [key])
    assert added == BOTH
    envelopes, bundles = await stored(registry_client, image.index)
    assert envelopes == bundles
    (statement,) = envelopes
    assert json.loads(statement) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": image.index.name,
                "digest": {"sha256": image.digest.removeprefix("sha256:")},
                "annotations": {"dev.edgemodel.repository": image.index.name},
            }
        ],
        "predicateType": SLSA,
        "predicate": json.loads(PROVENANCE.predicate),
    }


class Restless:
    """A signer whose signatures over the same bytes always differ, as those of hardware do."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public_key: PublicKey = LocalKey(self._key).public_key

    async def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))


async def test_attesting_again_adds_only_what_is_new(
    registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    subject, signers = await subject_of(registry_client, image.index), [key, Restless()]

    async def attest(*attestations: Attestation) -> frozenset[Format]:
        return await attest_digest(registry_client, image.index, subject, attestations, signers)

    assert await attest(PROVENANCE) == BOTH
    assert await attest(PROVENANCE, PROVENANCE) == frozenset()
    # White space and the order of members are no other predicate.
    spaced = Attestation(SLSA, json.dumps(json.loads(PROVENANCE.predicate), indent=3).encode())
    assert await attest(spaced) == frozenset()
    assert await attest(PROVENANCE, CONTENTS) == BOTH
    assert await attest(Attestation(SLSA, b"{}")) == BOTH
    envelopes, bundles = await stored(registry_client, image.index)
    assert len(envelopes) == len(bundles) == 6


@dataclass
class Counting:
    """A client that counts the bytes of the blobs it reads, and how many are on their way at once."""

    client: RegistryClient
    read: list[int] = field(default_factory=list)
    running: int = 0
    most: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def get_blob(self, image: Reference, digest: str, *, max_bytes: int) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            content = await self.client.get_blob(image, digest, max_bytes=max_bytes)
        finally:
            self.running -= 1
        self.read.append(len(content))
        return content


async def store_junk(client: RegistryClient, image: Reference, subject: Descriptor, sizes: list[int]) -> None:
    """Store what calls itself provenance in both formats, of sizes in bytes."""
    annotations = {"predicateType": SLSA}
    parts = []
    for number, size in enumerate(sizes):
        content = (b"%d" % number).ljust(size)
        whole = Descriptor.of(ENVELOPE_MEDIA_TYPE, content)
        described = Descriptor(whole.media_type, whole.digest, whole.size, annotations=annotations)
        parts.append(Part(described, content))
    await keep_layers(client, image.with_tag(attestation_tag(subject.digest)), parts)
    await keep_bundles(client, image, subject, [BundlePart(part.content, SLSA) for part in parts])


async def test_what_is_no_statement_of_ours_by_its_size_is_not_read(
    registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    child, counting = image.children[0], Counting(registry_client)
    subject = await subject_of(registry_client, child)
    await store_junk(registry_client, child, subject, [100, 50_000, 60_000])
    for added in (BOTH, frozenset()):
        assert await attest_digest(cast("Any", counting), child, subject, [PROVENANCE], [key]) == added
    assert len(counting.read) == 2
    assert max(counting.read) < 2_000


async def test_of_what_may_be_ours_little_is_read_and_one_at_a_time(
    registry_client: RegistryClient, image: PushedImage, key: LocalKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_attestations, "MAX_TOTAL_BYTES", 20_000)
    child, counting = image.children[0], Counting(registry_client)
    subject = await subject_of(registry_client, child)
    await attest_digest(registry_client, child, subject, [PROVENANCE], [key])
    await store_junk(registry_client, child, subject, [5_000] * 8)
    assert await attest_digest(cast("Any", counting), child, subject, [PROVENANCE], [key]) == frozenset()
    assert len(counting.read) == 2, "ours is the smallest of each format, and nothing is sought after it"
    other = LocalKey(ec.generate_private_key(ec.SECP256R1()))
    counting.read.clear()
    assert await attest_digest(cast("Any", counting), child, subject, [PROVENANCE], [other]) == BOTH
    assert sum(counting.read) <= 2 * 20_000
    assert counting.most == 1


async def test_only_the_wanted_format_is_written(
    registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    first, second = image.children
    for child, formats in ((first, LEGACY), (second, BUNDLE)):
        subject = await subject_of(registry_client, child)
        assert await attest_digest(registry_client, child, subject, [CONTENTS], [key], formats) == formats
    assert [len(one) for one in await stored(registry_client, first)] == [1, 0]
    assert [len(one) for one in await stored(registry_client, second)] == [0, 1]


@pytest.mark.parametrize(
    "attestation",
    [
        Attestation(bundle.SIGN_PREDICATE_TYPE, b"{}"),
        Attestation("no uri", b"{}"),
        Attestation("spdx", b"{}"),
        Attestation("https://plant-a.local/ type", b"{}"),
        Attestation(SLSA, b""),
        Attestation(SLSA, b"[]"),
        Attestation(SLSA, b'{"a": 1, "a": 2}'),
        Attestation(SLSA, b'{"a": NaN}'),
        Attestation(SLSA, b'{"a": "' + b"x" * 9_000_000 + b'"}'),
    ],
    ids=lambda one: one.predicate[:12].decode() + one.predicate_type[:12],
)
async def test_what_is_no_attestation_is_refused_before_anything_is_written(
    client: RegistryClient, key: LocalKey, attestation: Attestation
) -> None:
    nowhere = Reference("127.0.0.1:1", "nowhere")
    subject = Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "0" * 64, 2)
    with pytest.raises(NotSignable):
        await attest_digest(client, nowhere, subject, [PROVENANCE, attestation], [key])


@pytest.mark.parametrize("formats", [LEGACY, BUNDLE, BOTH], ids=["legacy", "bundle", "both"])
async def test_case_17_cosign_verifies_our_attestations(
    cosign: Cosign,
    registry_client: RegistryClient,
    image: PushedImage,
    key: LocalKey,
    formats: frozenset[Format],
) -> None:
    child = image.children[0]
    subject = await subject_of(registry_client, child)
    await attest_digest(registry_client, child, subject, [PROVENANCE, CONTENTS], [key], formats)
    options = () if formats == LEGACY else await cosign.empty_root()
    if formats == BUNDLE:
        options = (*options, "--new-bundle-format=true")
    for kind, told in (("slsaprovenance1", b"edgemodel.dev/build/v1"), ("spdxjson", b"SPDX-2.3")):
        ran = await cosign.verify_attestation(child, kind, *options)
        payloads = [json.loads(line)["payload"] for line in ran.said.splitlines() if line.startswith("{")]
        assert payloads, ran
        assert any(told in base64.b64decode(payload) for payload in payloads)
    refused = await cosign.verify_attestation(child, "vuln", *options, status=None)
    assert refused.status != 0


async def test_case_17_we_verify_the_attestations_of_cosign(
    cosign: Cosign, registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    child = image.children[0]
    (cosign.folder / "predicate.json").write_bytes(PROVENANCE.predicate)
    await cosign.attest(child, "slsaprovenance1", "predicate.json")
    await sign_image(registry_client, child, [key])
    wanted = WantedAttestation(
        "origin", SLSA, checks=(PredicateCheck("has(predicate.buildDefinition)", "it has no build"),)
    )
    demand = Demand((Authority("plant", (key.public_key,)),), attestations=(wanted,), any_repository=True)
    verdict = await verify_image(registry_client, child, demand)
    assert isinstance(verdict, Trusted), verdict


async def test_case_17_we_verify_our_own_attestations_and_they_are_bound_to_the_repository(
    registry_client: RegistryClient, image: PushedImage, key: LocalKey
) -> None:
    child = image.children[0]
    subject = await subject_of(registry_client, child)
    await sign_image(registry_client, child, [key])
    demand = Demand(
        (Authority("plant", (key.public_key,)),), attestations=(WantedAttestation("origin", SLSA),)
    )
    assert not isinstance(await verify_image(registry_client, child, demand), Trusted)
    await attest_digest(registry_client, child, subject, [PROVENANCE], [key])
    assert isinstance(await verify_image(registry_client, child, demand), Trusted)


async def test_attestations_of_cosign_and_ours_live_side_by_side(
    cosign: Cosign, registry_client: RegistryClient, image: PushedImage
) -> None:
    child, ours = image.children[0], LocalKey(ec.generate_private_key(ec.SECP256R1()))
    subject = await subject_of(registry_client, child)
    # Of an image with any bundle cosign 2.6 reads nothing else, not even its own attestations.
    formats = LEGACY if cosign.is_2 else BOTH
    (cosign.folder / "predicate.json").write_bytes(PROVENANCE.predicate)
    await attest_digest(registry_client, child, subject, [CONTENTS], [ours], formats)
    await cosign.attest(child, "slsaprovenance1", "predicate.json")
    await attest_digest(registry_client, child, subject, [CONTENTS, PROVENANCE], [ours], formats)
    assert [len(one) for one in await stored(registry_client, child)] == ([3, 0] if cosign.is_2 else [2, 3])
    await cosign.verify_attestation(child, "slsaprovenance1", *await cosign.empty_root())


async def test_case_12_fifty_parallel_writers_lose_no_attestation_and_no_signature(
    client: RegistryClient, registry: RegistryServer
) -> None:
    image = await push_image(client, Reference(registry.host, "attested/contended"))
    child = image.children[0]
    subject = await subject_of(client, child)
    keys = [LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(25)]

    async def alone(key: LocalKey, *, attests: bool) -> None:
        # A client each, as if each were a process of its own: they share no locks.
        async with new_session() as session:
            own = RegistryClient(session, plain_http={registry.host})
            if attests:
                await attest_digest(own, child, subject, [PROVENANCE, CONTENTS], [key])
            else:
                await sign_image(own, child, [key])

    await asyncio.gather(*(alone(key, attests=attests) for key in keys for attests in (True, False)))
    envelopes, bundles = await stored(client, child)
    assert len(envelopes) == 2 * len(keys)
    assert len(bundles) == 3 * len(keys)
    signatures = (await client.get_manifest(child.with_tag(f"{subject.digest.replace(':', '-')}.sig"))).json()
    assert len(signatures["layers"]) == len(keys)
