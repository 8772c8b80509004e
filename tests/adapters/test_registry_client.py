"""The registry client against a real registry."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from edgemodel_operator.oci.copy import Endpoint, copy_image
from edgemodel_operator.oci.descriptor import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    canonical_json,
    sha256_digest,
)
from edgemodel_operator.oci.errors import (
    DigestMismatch,
    NotFound,
    ProtocolError,
    RegistryUnavailable,
    TooLarge,
)
from edgemodel_operator.oci.image import parse_index
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient, fallback_tag
from edgemodel_operator.oci.transport import RetryPolicy
from support.images import AMD64, attach, push_image, push_index
from support.registry import RegistryServer, free_port

BINARY = "application/octet-stream"


@pytest.fixture
def ref(registry: RegistryServer, request: pytest.FixtureRequest) -> Reference:
    name = request.node.name.lower().replace("[", "-").replace("]", "").replace("_", "-")
    return parse_reference(f"{registry.host}/client/{name}:1")


async def test_a_blob_comes_back_as_it_was_sent(client: RegistryClient, ref: Reference) -> None:
    blob = Descriptor.of(BINARY, b"weights")
    assert not await client.blob_exists(ref, blob.digest)
    await client.put_blob(ref, b"weights", blob)
    assert await client.blob_exists(ref, blob.digest)
    assert await client.get_blob(ref, blob.digest, max_bytes=7) == b"weights"


async def test_a_large_file_is_streamed_both_ways(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    content = os.urandom(5_000_001)
    (tmp_path / "model").write_bytes(content)
    blob = Descriptor.of(BINARY, content)
    await client.put_blob(ref, tmp_path / "model", blob)
    assert b"".join([chunk async for chunk in client.open_blob(ref, blob)]) == content


async def test_an_empty_blob_is_stored(client: RegistryClient, ref: Reference) -> None:
    blob = Descriptor.of(BINARY, b"")
    await client.put_blob(ref, b"", blob)
    assert [chunk async for chunk in client.open_blob(ref, blob)] == []


async def test_a_blob_above_the_limit_is_refused(client: RegistryClient, ref: Reference) -> None:
    blob = Descriptor.of(BINARY, b"x" * 100)
    await client.put_blob(ref, b"x" * 100, blob)
    with pytest.raises(TooLarge, match="announced 100 bytes"):
        await client.get_blob(ref, blob.digest, max_bytes=99)


async def test_a_blob_with_a_wrong_size_in_its_descriptor_is_refused(
    client: RegistryClient, ref: Reference
) -> None:
    blob = Descriptor.of(BINARY, b"x" * 100)
    await client.put_blob(ref, b"x" * 100, blob)
    with pytest.raises(DigestMismatch):
        async for _ in client.open_blob(ref, Descriptor(BINARY, blob.digest, 99)):
            pass


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_content_that_does_not_match_its_descriptor_is_never_stored(
    client: RegistryClient, ref: Reference, size: int
) -> None:
    described = Descriptor.of(BINARY, b"a" * size)
    with pytest.raises((ProtocolError, DigestMismatch)):
        await client.put_blob(ref, b"b" * size, described)
    with pytest.raises(DigestMismatch):
        await client.put_blob(ref, b"a" * (size - 1), described)
    with pytest.raises(TooLarge):
        await client.put_blob(ref, b"a" * (size + 1), described)
    assert not await client.blob_exists(ref, described.digest)


async def test_a_blob_is_mounted_from_another_repository(client: RegistryClient, ref: Reference) -> None:
    blob = Descriptor.of(BINARY, b"shared")
    await client.put_blob(ref, b"shared", blob)
    other = parse_reference(f"{ref.name}-other:1")
    # The descriptor's content is not offered at all: only a mount can succeed.
    await client.put_blob(other, b"", blob, mount_from=ref.repository)
    assert await client.get_blob(other, blob.digest, max_bytes=100) == b"shared"


async def test_a_mount_that_is_not_possible_becomes_an_upload(client: RegistryClient, ref: Reference) -> None:
    blob = Descriptor.of(BINARY, b"not there yet")
    await client.put_blob(ref, b"not there yet", blob, mount_from="no/such-repository")
    assert await client.blob_exists(ref, blob.digest)


async def test_an_index_keeps_its_exact_bytes(client: RegistryClient, ref: Reference) -> None:
    image = await push_image(client, ref, AMD64, b"one")
    spaced = b'{ "schemaVersion":2,"mediaType":"%s","manifests":[%s] }\n' % (
        OCI_INDEX.encode(),
        canonical_json(image.descriptor.to_json()),
    )
    stored = await client.put_manifest(ref, spaced, OCI_INDEX)
    assert stored.descriptor.digest == sha256_digest(spaced)
    fetched = await client.get_manifest(ref)
    assert fetched.body == spaced
    assert fetched.descriptor == stored.descriptor == await client.head_manifest(ref)
    assert parse_index(fetched.body).manifests == (image.descriptor,)


async def test_a_manifest_without_tag_is_stored_under_its_digest(
    client: RegistryClient, ref: Reference
) -> None:
    image = await push_image(client, ref, AMD64, b"one")
    untagged = parse_reference(ref.name)
    stored = await client.put_manifest(untagged, image.manifest, OCI_MANIFEST)
    assert (await client.get_manifest(untagged.with_digest(stored.descriptor.digest))).body == image.manifest
    assert await client.head_manifest(untagged.with_tag("latest")) is None


async def test_a_manifest_for_another_digest_is_not_pushed(client: RegistryClient, ref: Reference) -> None:
    with pytest.raises(DigestMismatch):
        await client.put_manifest(ref.with_digest(sha256_digest(b"other")), b"{}", OCI_INDEX)


async def test_what_is_missing_is_not_found(client: RegistryClient, ref: Reference) -> None:
    assert await client.head_manifest(ref) is None
    with pytest.raises(NotFound):
        await client.get_manifest(ref)
    with pytest.raises(NotFound):
        await client.get_blob(ref, sha256_digest(b"missing"), max_bytes=10)


async def test_an_index_with_missing_children_is_refused_by_the_registry(
    client: RegistryClient, ref: Reference
) -> None:
    child = Descriptor(OCI_MANIFEST, sha256_digest(b"missing"), 7)
    body = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child.to_json()]})
    with pytest.raises(ProtocolError, match="MANIFEST"):
        await client.put_manifest(ref, body, OCI_INDEX)


async def test_a_manifest_can_be_deleted_once(client: RegistryClient, ref: Reference) -> None:
    image = await push_image(client, ref, AMD64, b"one")
    pinned = ref.with_digest(image.descriptor.digest)
    assert await client.delete_manifest(pinned)
    assert await client.head_manifest(pinned) is None
    assert not await client.delete_manifest(pinned)


async def test_referrers_are_found_through_the_fallback_tag(client: RegistryClient, ref: Reference) -> None:
    subject = await push_index(client, ref)
    assert await client.list_referrers(ref, subject.digest) == ()
    attached = {(await attach(client, ref, subject, note)).digest for note in ("first", "second")}
    listed = await client.list_referrers(ref, subject.digest)
    assert {entry.digest for entry in listed} == attached
    assert await client.head_manifest(ref.with_tag(fallback_tag(subject.digest))) is not None


async def test_writers_of_the_fallback_tag_do_not_lose_entries(
    client: RegistryClient, ref: Reference
) -> None:
    subject = await push_index(client, ref)
    attached = await asyncio.gather(*(attach(client, ref, subject, str(note)) for note in range(12)))
    listed = await client.list_referrers(ref, subject.digest)
    assert {entry.digest for entry in listed} == {entry.digest for entry in attached}
    with pytest.raises(TooLarge):
        await client.list_referrers(ref, subject.digest, max_referrers=11)


async def test_a_copied_index_keeps_its_digest_and_tags_its_children(
    client: RegistryClient, ref: Reference
) -> None:
    source = await push_index(client, ref)
    target = parse_reference(f"{ref.name}-copy:2")
    copied = await copy_image(Endpoint(client, ref), Endpoint(client, target))
    assert copied.digest == source.digest
    index = parse_index((await client.get_manifest(target)).body)
    for child in index.manifests:
        tagged = await client.head_manifest(target.with_tag(f"2-linux-{child.platform.architecture}"))  # type: ignore[union-attr]
        assert tagged is not None
        assert tagged.digest == child.digest


async def test_case_23_a_registry_that_is_down_is_unavailable(http_session: aiohttp.ClientSession) -> None:
    host = f"127.0.0.1:{free_port()}"
    client = RegistryClient(http_session, plain_http={host}, retry=RetryPolicy(attempts=2, first_pause=0.001))
    with pytest.raises(RegistryUnavailable) as raised:
        await client.head_manifest(parse_reference(f"{host}/a:1"))
    assert raised.value.retryable
