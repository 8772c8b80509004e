"""Image layouts on disk: complete or not there, and one writer at a time."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from edgemodel_operator.oci.descriptor import (
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    canonical_json,
    sha256_digest,
)
from edgemodel_operator.oci.errors import DigestMismatch, NotFound, ProtocolError, TooLarge
from edgemodel_operator.oci.image import parse_index
from edgemodel_operator.oci.image_layout import LayoutStore, is_layout, layout_folder, parse_location
from edgemodel_operator.oci.layout_transaction import LayoutBusy, NotALayout, layout_transaction
from edgemodel_operator.oci.reference import InvalidReference, Reference
from support.images import push_index

BLOB = b"weights" * 1000
LAYER = Descriptor.of(OCI_LAYER_ZSTD, BLOB)


@pytest.fixture
def place(tmp_path: Path) -> Reference:
    return parse_location(f"oci:{tmp_path}/images:7")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("text", "folder", "tag"),
    [
        ("oci:/srv/images", "/srv/images", None),
        ("oci:/srv/images:7", "/srv/images", "7"),
        ("oci:/srv/a:b/images", "/srv/a:b/images", None),
        ("oci:/srv/a:b/images:7", "/srv/a:b/images", "7"),
    ],
)
def test_a_place_on_disk_is_read_as_other_tools_write_it(text: str, folder: str, tag: str | None) -> None:
    place = parse_location(text)
    assert is_layout(place)
    assert (str(layout_folder(place)), place.tag) == (folder, tag)
    assert parse_location(str(place)) == place


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert layout_folder(parse_location("oci:images")) == tmp_path / "images"


@pytest.mark.parametrize("text", ["oci:", "oci::7", "oci:images@sha256:1", "oci:images:-bad-", "images"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_location(text)


def test_a_registry_stays_a_registry() -> None:
    place = parse_location("registry.plant-a.local:5000/models/line:7")
    assert not is_layout(place)


async def test_an_index_is_read_back_by_tag_by_digest_and_as_the_only_image(place: Reference) -> None:
    store = LayoutStore()
    stored = await push_index(store, place)
    for ref in (place, place.with_digest(stored.digest), parse_location(f"oci:{layout_folder(place)}")):
        manifest = await store.get_manifest(ref)
        assert manifest.descriptor == stored
    child = parse_index(manifest.body).manifests[0]
    assert (await store.get_manifest(place.with_digest(child.digest))).descriptor.media_type == OCI_MANIFEST


async def test_the_folder_is_a_layout_of_the_specification(place: Reference) -> None:
    stored = await push_index(LayoutStore(), place)
    folder = layout_folder(place)
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["manifests"] == [
        {
            "mediaType": OCI_INDEX,
            "digest": stored.digest,
            "size": stored.size,
            "annotations": {"org.opencontainers.image.ref.name": "7"},
        }
    ]
    for blob in (folder / "blobs" / "sha256").iterdir():
        assert sha256_digest(blob.read_bytes()) == f"sha256:{blob.name}"


async def test_a_tag_moves_and_other_tags_stay(place: Reference) -> None:
    store = LayoutStore()
    first = await push_index(store, place, b"one")
    await push_index(store, place.with_tag("8"), b"two")
    moved = await push_index(store, place, b"three")
    index = parse_index((layout_folder(place) / "index.json").read_bytes())
    assert len(index.manifests) == 2
    assert (await store.get_manifest(place)).descriptor == moved
    assert first.digest not in {entry.digest for entry in index.manifests}


async def test_the_tags_of_platforms_give_way_to_their_index(place: Reference) -> None:
    store = LayoutStore()
    stored = await push_index(store, place)
    child = parse_index((await store.get_manifest(place)).body).manifests[0]
    body = (await store.get_manifest(place.with_digest(child.digest))).body
    await store.put_manifest(place.with_tag("9-linux-amd64"), body, OCI_MANIFEST)
    await store.put_manifest(place.with_tag("kept"), body, OCI_MANIFEST)
    index = (await store.get_manifest(place.with_digest(stored.digest))).body
    await store.put_manifest(place.with_tag("9"), index, OCI_INDEX)
    listed = parse_index((layout_folder(place) / "index.json").read_bytes()).manifests
    assert {entry.annotations["org.opencontainers.image.ref.name"] for entry in listed} == {"7", "9", "kept"}


async def test_several_images_need_a_tag(place: Reference) -> None:
    store = LayoutStore()
    await push_index(store, place)
    await push_index(store, place.with_tag("8"), b"other")
    bare = parse_location(f"oci:{layout_folder(place)}")
    with pytest.raises(NotFound, match="with one of 7, 8"):
        await store.get_manifest(bare)
    with pytest.raises(NotFound, match="no image '9'; it holds: 7, 8"):
        await store.get_manifest(bare.with_tag("9"))


async def test_what_is_not_there_is_not_found(place: Reference) -> None:
    store = LayoutStore()
    assert await store.head_manifest(place) is None
    assert not await store.blob_exists(place, LAYER.digest)
    with pytest.raises(NotFound):
        await store.get_blob(place, LAYER.digest, max_bytes=100)
    with pytest.raises(NotFound):
        await anext(store.open_blob(place, LAYER))


async def test_a_manifest_whose_parts_are_missing_is_refused(place: Reference) -> None:
    body = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": LAYER.to_json(),
            "layers": [LAYER.to_json()],
        }
    )
    with pytest.raises(ProtocolError, match=f"lacks {LAYER.digest}"):
        await LayoutStore().put_manifest(place, body, OCI_MANIFEST)
    assert not layout_folder(place).exists()


@pytest.mark.parametrize("chunks", [[BLOB[:-1]], [BLOB, b"x"], [b"x" * len(BLOB)]])
async def test_a_blob_that_is_not_what_it_says_never_appears(place: Reference, chunks: list[bytes]) -> None:
    async def source(offset: int) -> AsyncGenerator[bytes, None]:
        for chunk in chunks:
            yield chunk

    with pytest.raises((DigestMismatch, TooLarge)):
        await LayoutStore().put_blob(place, source, LAYER)
    assert files(layout_folder(place)) == ["oci-layout"]


async def test_a_damaged_blob_is_noticed_when_it_is_read(place: Reference) -> None:
    store = LayoutStore()
    await store.put_blob(place, BLOB, LAYER)
    path = layout_folder(place) / "blobs" / "sha256" / LAYER.digest.removeprefix("sha256:")
    path.write_bytes(b"x" * len(BLOB))
    with pytest.raises(DigestMismatch):
        await store.get_blob(place, LAYER.digest, max_bytes=len(BLOB))
    with pytest.raises(DigestMismatch):
        async for _ in store.open_blob(place, LAYER):
            pass
    path.write_bytes(BLOB[:-1])
    await store.put_blob(place, BLOB, LAYER)  # a size that is wrong is seen without reading, and mended
    assert path.read_bytes() == BLOB


async def test_a_blob_that_is_too_large_is_not_read(place: Reference) -> None:
    store = LayoutStore()
    await store.put_blob(place, BLOB, LAYER)
    with pytest.raises(TooLarge):
        await store.get_blob(place, LAYER.digest, max_bytes=10)


async def test_what_is_attached_to_an_image_is_listed(place: Reference) -> None:
    store = LayoutStore()
    subject = await push_index(store, place)
    empty = Descriptor.of(OCI_EMPTY, b"{}")
    await store.put_blob(place, b"{}", empty)
    body = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/spdx+json",
            "config": empty.to_json(),
            "layers": [empty.to_json()],
            "subject": subject.to_json(),
            "annotations": {"of": "amd64"},
        }
    )
    answer = await store.put_manifest(place.with_digest(sha256_digest(body)), body, OCI_MANIFEST)
    await store.put_manifest(place.with_digest(sha256_digest(body)), body, OCI_MANIFEST)
    assert answer.subject_acknowledged
    (listed,) = await store.list_referrers(place, subject.digest)
    assert (listed.digest, listed.artifact_type) == (sha256_digest(body), "application/spdx+json")
    assert listed.annotations == {"of": "amd64"}
    assert await store.list_referrers(place, listed.digest) == ()
    bare = parse_location(f"oci:{layout_folder(place)}")
    assert (await store.get_manifest(bare)).descriptor == subject, "a referrer is no second image"


async def test_writers_do_not_lose_each_others_tags(place: Reference) -> None:
    store = LayoutStore()
    stored = await push_index(store, place)
    body = (await store.get_manifest(place)).body
    tags = {f"t{number}" for number in range(20)}
    await asyncio.gather(*(store.put_manifest(place.with_tag(tag), body, OCI_INDEX) for tag in tags))
    listed = parse_index((layout_folder(place) / "index.json").read_bytes()).manifests
    assert {entry.annotations["org.opencontainers.image.ref.name"] for entry in listed} == {*tags, "7"}
    assert {entry.digest for entry in listed} == {stored.digest}


async def interrupted(place: Reference, work: Callable[[], Awaitable[object]]) -> None:
    with suppress(KeyboardInterrupt), layout_transaction(layout_folder(place)):
        await work()
        raise KeyboardInterrupt


async def test_a_failed_attempt_leaves_no_folder(place: Reference) -> None:
    await interrupted(place, lambda: LayoutStore().put_blob(place, BLOB, LAYER))
    assert not layout_folder(place).exists()


async def test_a_failed_attempt_leaves_what_was_there(place: Reference) -> None:
    store, folder = LayoutStore(), layout_folder(place)
    await push_index(store, place)
    before = files(folder)
    await interrupted(place, lambda: store.put_blob(place, BLOB, LAYER))
    assert files(folder) == before


async def test_an_image_that_was_completed_stays_whatever_happens_after_it(place: Reference) -> None:
    store = LayoutStore()
    await interrupted(place, lambda: push_index(store, place))
    assert await store.head_manifest(place) is not None


def test_two_builds_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (
        layout_transaction(tmp_path / "images"),
        pytest.raises(LayoutBusy, match="wait for it"),
        layout_transaction(tmp_path / "images"),
    ):
        pass


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(NotALayout, match="name a new or an empty folder"), layout_transaction(tmp_path):
        pass
    assert files(tmp_path) == ["thesis.txt"]


KILLED = """
import asyncio, sys
from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.image_layout import LayoutStore, parse_location

async def source(offset):
    yield b"half"
    print("written", flush=True)
    await asyncio.Event().wait()

blob = Descriptor.of("application/octet-stream", b"half and half")
asyncio.run(LayoutStore().put_blob(parse_location(sys.argv[1]), source, blob))
"""


def test_a_killed_writer_leaves_nothing_that_the_next_one_keeps(place: Reference) -> None:
    folder = layout_folder(place)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(place)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert [name for name in files(folder) if name.startswith("blobs")] == []
    with layout_transaction(folder):
        assert files(folder) == ["oci-layout"]
