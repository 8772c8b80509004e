"""The same request gives the same bytes, whoever builds it, where, and how often."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgemodel_operator.api.image import Compression, Sharding
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.oci.descriptor import OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.build import SourceServer, make_onnx, make_request, missing_parts, source_server, with_image
from support.images import push_index
from support.registry import RegistryServer
from support.worker import Surroundings, build_in

MODEL = make_onnx(1600)
KINDS = tuple(itertools.product(Compression, Sharding))


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        server.serve(MODEL)
        yield server


@pytest.fixture
async def build_request(
    client: RegistryClient, registry: RegistryServer, server: SourceServer
) -> BuildRequest:
    runtime = parse_reference(f"{registry.host}/runtimes/cpu:1")
    digest = (await push_index(client, runtime)).digest
    return make_request(
        server.url(),
        MODEL,
        runtime=str(runtime.with_digest(digest)),
        repository=f"{registry.host}/determinism/a",
    )


KNOWN = dict(
    zip(
        KINDS,
        (
            "82a58a6d08a071e99409263c89321036b37715a2e1344fd38ac0ad04bf4ee284",
            "ebac2ffda0de35328b520b967426b829dcf3564369cc1efddc3f89076ee2992b",
            "df4101696dbc9483a24bf344f420c5afe757611ee6039b55097ec00c41d1fa28",
            "03b15496965744c4f42ec928097cc9500f4f3e7f0ccbcf21ee7dc225c9d8562e",
        ),
        strict=True,
    )
)
"""The SHA-256 of the index that the request of these tests makes: the same on every machine, in every release
with the same `ASSEMBLER`. Where it differs and nothing here has changed, raise the number in
`build/layout.py` first: a build key must not stand for two images."""


def make_surroundings(folder: Path) -> tuple[Surroundings, Surroundings]:
    """Give two places that differ in all that programs have been seen to pick up."""
    for name in ("home", "here"):
        (folder / name).mkdir()
    one = {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "1",
        "HOME": "/nonexistent",
        "SOURCE_DATE_EPOCH": "1700000000",
    }
    other = {
        "TZ": "America/St_Johns",
        "LC_ALL": "C.UTF-8",
        "LANG": "de_DE.UTF-8",
        "PYTHONHASHSEED": "2",
        "HOME": str(folder / "home"),
        "USER": "somebody",
        "OMP_NUM_THREADS": "1",
    }
    return Surroundings(one, 0o077, folder), Surroundings(other, 0o000, folder / "here")


@pytest.mark.parametrize(("compression", "sharding"), KINDS)
async def test_two_processes_in_different_surroundings_make_the_same_index(
    client: RegistryClient,
    build_request: BuildRequest,
    tmp_path: Path,
    compression: Compression,
    sharding: Sharding,
) -> None:
    results = []
    for number, surroundings in enumerate(make_surroundings(tmp_path)):
        repository = f"{build_request.image.repository}-{compression}-{sharding}-{number}".lower()
        request = with_image(build_request, repository=repository, compression=compression, sharding=sharding)
        (tmp_path / f"work-{number}").mkdir()
        results.append(await build_in(surroundings, request, tmp_path / f"work-{number}"))
        assert await missing_parts(client, parse_reference(results[-1].image)) == []
    assert results[0].index_digest == results[1].index_digest
    assert results[0].build_key == results[1].build_key
    assert results[0].index_digest == f"sha256:{KNOWN[compression, sharding]}"
    await check_layers(client, parse_reference(results[0].image), compression, sharding)


async def check_layers(
    client: RegistryClient, image: Reference, compression: Compression, sharding: Sharding
) -> None:
    """Hold the layers of the model against what was asked; the runtime of the tests has one below them."""
    expected = OCI_LAYER_ZSTD if compression is Compression.ZSTD else OCI_LAYER_GZIP
    count = 2 if sharding is Sharding.AUTO else 1
    for child in parse_index((await client.get_manifest(image)).body).manifests:
        manifest = parse_manifest((await client.get_manifest(image.with_digest(child.digest))).body)
        assert [layer.media_type for layer in manifest.layers[1:]] == [expected] * count


async def test_every_choice_has_an_image_of_its_own(build_request: BuildRequest) -> None:
    requests = [with_image(build_request, compression=one, sharding=other) for one, other in KINDS]
    assert len({request.build_key for request in requests}) == len(KINDS)


async def test_a_second_build_sends_nothing(
    client: RegistryClient, build_request: BuildRequest, tmp_path: Path
) -> None:
    request = with_image(build_request, repository=f"{build_request.image.repository}-again")
    one, other = make_surroundings(tmp_path)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = await build_in(one, request, tmp_path / "first")
    second = await build_in(other, request, tmp_path / "second")
    assert (second.index_digest, second.bytes_pushed) == (first.index_digest, 0)
