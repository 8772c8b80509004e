"""Publishing when the registry loses or refuses something: what can be found afterwards is complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.image import Sharding
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.graft import GraftedImage, Runtime, graft_image
from edgemodel_operator.build.layers import write_layers
from edgemodel_operator.build.layout import ModelFacts, layer_entries
from edgemodel_operator.build.publish import Destination, Publisher
from edgemodel_operator.build.runtime import read_runtime
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.split import split_model
from edgemodel_operator.core.build_key import child_tag, index_tag
from edgemodel_operator.oci.compression import ZSTD
from edgemodel_operator.oci.image import parse_manifest
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.build import make_onnx, missing_parts, sha256
from support.builders import make_model
from support.images import push_index
from support.registry import Fault, FaultyRegistry, RegistryServer

KEY = "d" * 64
MODEL = make_onnx(1600)


@pytest.fixture
async def destination(
    faulty: FaultyRegistry, faulty_client: RegistryClient, request: pytest.FixtureRequest
) -> Destination:
    name = sha256(request.node.name.encode())[:12]
    runtime = parse_reference(f"{faulty.host}/runtimes/{name}:1")
    digest = (await push_index(faulty_client, runtime, name.encode())).digest
    target = parse_reference(f"{faulty.host}/models/{name}")
    return Destination(faulty_client, target, runtime.with_digest(digest))


@pytest.fixture
async def image(destination: Destination, tmp_path: Path) -> GraftedImage:
    (tmp_path / "m.onnx").write_bytes(MODEL)
    file = SourceFile(tmp_path / "m.onnx", "m.onnx", sha256(MODEL), len(MODEL))
    parts = await split_model(ModelFormat.ONNX, [file], Sharding.AUTO, tmp_path)
    facts = ModelFacts("m", make_model("7").build().model, file.sha256, KEY)
    layers = await write_layers(layer_entries(facts, parts), ZSTD, tmp_path)
    children = await read_runtime(destination.client, destination.runtime, [])
    runtime = Runtime(destination.runtime.digest or "", children)
    return graft_image(facts, ModelReport(), runtime, layers)


async def publish(destination: Destination, image: GraftedImage) -> int:
    publisher = Publisher(destination, lambda done, total: None)
    await publisher.publish(image, KEY)
    return publisher.sent


async def failure_of(destination: Destination, image: GraftedImage) -> str:
    with pytest.raises(BuildError) as caught:
        await publish(destination, image)
    assert caught.value.failure.reason is Reason.REGISTRY_REFUSED
    assert caught.value.failure.retryable
    return caught.value.failure.message


async def tags_of(destination: Destination, image: GraftedImage) -> list[str]:
    """List the tags that can be found, each of which must lead to something complete."""
    client, target = destination.client, destination.target
    found = []
    for child in image.children:
        tagged = target.with_tag(child_tag(KEY, str(child.platform)))
        if await client.head_manifest(tagged) is not None:
            found.append(str(child.platform))
            manifest = parse_manifest((await client.get_manifest(tagged)).body)
            for blob in (manifest.config, *manifest.layers):
                assert await client.blob_exists(target, blob.digest), blob.digest
    if await client.head_manifest(target.with_tag(index_tag(KEY))) is not None:
        found.append("index")
        assert await missing_parts(client, target.with_tag(index_tag(KEY))) == []
    return found


def once(matches: Callable[[web.Request], bool], do: Callable[[], web.Response | None]) -> Fault:
    """Do something at the first request that matches; it is passed on unless that gives an answer."""
    done = False

    async def fault(request: web.Request) -> web.Response | None:
        nonlocal done
        if done or not matches(request):
            return None
        done = True
        return do()

    return fault


def lose(registry: RegistryServer, destination: Destination, digest: str) -> Callable[[], None]:
    """Take a blob out of a repository behind the registry's back, as a careless garbage collection does."""
    repository = registry.storage / "docker/registry/v2/repositories" / destination.target.repository
    link = repository / "_layers/sha256" / digest.removeprefix("sha256:") / "link"

    def unlink() -> None:
        link.unlink()

    return unlink


async def test_a_push_ends_with_all_that_can_be_found(destination: Destination, image: GraftedImage) -> None:
    size = sum(written.layer.descriptor.size for written in image.layers)
    assert size <= await publish(destination, image) < size + 4000
    assert await tags_of(destination, image) == ["linux/amd64", "linux/arm64", "index"]
    assert await publish(destination, image) == 0


async def test_a_blob_that_is_lost_before_the_manifests_is_noticed(
    registry: RegistryServer, faulty: FaultyRegistry, destination: Destination, image: GraftedImage
) -> None:
    digest = image.layers[0].layer.descriptor.digest
    asked = 0

    async def lose_it_after_it_was_stored(request: web.Request) -> None:
        nonlocal asked
        if request.method == "HEAD" and digest in request.path:
            asked += 1
            if asked == 2:
                lose(registry, destination, digest)()

    faulty.faults.append(lose_it_after_it_was_stored)
    message = await failure_of(destination, image)
    assert f"took {digest} and has lost it since" in message
    assert await tags_of(destination, image) == []
    assert await publish(destination, image) > 0
    assert await tags_of(destination, image) == ["linux/amd64", "linux/arm64", "index"]


async def test_a_blob_that_is_lost_while_the_manifests_come_is_noticed(
    registry: RegistryServer, faulty: FaultyRegistry, destination: Destination, image: GraftedImage
) -> None:
    config = image.children[1].image.config_descriptor.digest
    tag = child_tag(KEY, "linux/arm64")

    def drop() -> None:
        lose(registry, destination, config)()

    faulty.faults.append(once(lambda request: request.method == "PUT" and tag in request.path, drop))
    await failure_of(destination, image)
    assert await tags_of(destination, image) == ["linux/amd64"]
    await publish(destination, image)
    assert await tags_of(destination, image) == ["linux/amd64", "linux/arm64", "index"]


def refused() -> web.Response:
    body = {"errors": [{"code": "DENIED", "message": "the quota of the project is used up"}]}
    return web.json_response(body, status=400)


def is_blob_number(number: int) -> Callable[[web.Request], bool]:
    seen = 0

    def matches(request: web.Request) -> bool:
        nonlocal seen
        seen += request.method == "PUT" and "/blobs/uploads/" in request.path
        return seen == number

    return matches


@pytest.mark.parametrize(
    ("matches", "found"),
    [
        (is_blob_number(1), []),
        (is_blob_number(2), []),
        (is_blob_number(3), []),
        (lambda request: request.method == "PUT" and request.path.endswith("-amd64"), []),
        (lambda request: request.method == "PUT" and request.path.endswith("-arm64"), ["linux/amd64"]),
        (
            lambda request: request.method == "PUT" and request.path.endswith(f"/{index_tag(KEY)}"),
            ["linux/amd64", "linux/arm64"],
        ),
    ],
    ids=["blob-1", "blob-2", "blob-3", "first-image", "second-image", "index"],
)
async def test_a_push_that_is_refused_halfway_leaves_nothing_incomplete(
    faulty: FaultyRegistry,
    destination: Destination,
    image: GraftedImage,
    matches: Callable[[web.Request], bool],
    found: list[str],
) -> None:
    faulty.faults.append(once(matches, refused))
    await failure_of(destination, image)
    assert await tags_of(destination, image) == found
    await publish(destination, image)
    assert await tags_of(destination, image) == ["linux/amd64", "linux/arm64", "index"]


async def test_layers_that_no_registry_has_are_pushed_from_files(
    destination: Destination, image: GraftedImage, tmp_path: Path
) -> None:
    blobs = {}
    for child in image.children:
        for layer in child.runtime_layers:
            chunks = destination.client.open_blob(destination.runtime, layer)
            path = tmp_path / layer.digest.replace(":", "-")
            path.write_bytes(b"".join([chunk async for chunk in chunks]))
            blobs[layer.digest] = path
    nowhere = replace(destination, runtime=destination.runtime.with_digest("sha256:" + "0" * 64))
    away = replace(nowhere.runtime, repository="runtimes/nobody-has-them")
    children = tuple(replace(child, runtime_blobs=blobs) for child in image.children)
    await publish(replace(nowhere, runtime=away), replace(image, children=children))
    assert await tags_of(destination, image) == ["linux/amd64", "linux/arm64", "index"]
