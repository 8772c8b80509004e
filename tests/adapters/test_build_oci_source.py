"""OCI sources: artifacts and images in a real registry."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from edgemodel_operator.api.source import Archive, OciFile, OciSource, Source
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import FetchedSource, SourceFile
from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.oci.descriptor import (
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_LAYER_TAR,
    OCI_LAYER_ZSTD,
)
from edgemodel_operator.oci.image import make_index
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.archives import make_tar, pack, special
from support.artifacts import TITLE, Layers, artifact, push, push_annotated
from support.build import LOOPBACK, sha256
from support.images import make_layer
from support.registry import FaultyRegistry, RegistryServer

MODEL = b"weights" * 1000
ONNX = Want((".onnx",), (".data",))


@pytest.fixture
def ref(registry: RegistryServer, request: pytest.FixtureRequest) -> Reference:
    return parse_reference(f"{registry.host}/oci-source/{sha256(request.node.name.encode())[:12]}:1")


ALLOWED = Allowance(AddressPolicy.parse(allowed=LOOPBACK), 1 << 20, 60)


def make_source(ref: Reference, path: str = "", digest: str = sha256(MODEL)) -> OciSource:
    return OciSource(reference=str(ref), path=path, sha256=digest)


def access_to(source: OciSource, *, configured: bool = False) -> SourceAccess:
    registry = source.reference.partition("/")[0]
    return SourceAccess(plain_http=(registry,), configured=frozenset({registry} if configured else ()))


async def fetch_all(
    source: OciSource, want: Want, folder: Path, allowance: Allowance = ALLOWED
) -> FetchedSource:
    return await fetch_source(Source(oci=source), want, folder, allowance, access_to(source))


async def fetch(source: OciSource, folder: Path, *, max_bytes: int = 1 << 20) -> SourceFile:
    allowance = replace(ALLOWED, max_bytes=max_bytes)
    (file,) = (await fetch_all(source, ONNX, folder, allowance)).files
    return file


async def failure_of(source: OciSource, folder: Path, *, max_bytes: int = 1 << 20) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await fetch(source, folder, max_bytes=max_bytes)
    return caught.value.failure


@pytest.mark.parametrize("path", ["", "model.onnx"])
async def test_a_titled_layer(client: RegistryClient, ref: Reference, tmp_path: Path, path: str) -> None:
    await push(client, ref, artifact(("README.md", b"read me"), ("model.onnx", MODEL)))
    file = await fetch(make_source(ref, path), tmp_path)
    assert file.path.read_bytes() == MODEL
    assert file.sha256 == sha256(MODEL)


async def test_a_digest_pins_the_artifact(client: RegistryClient, ref: Reference, tmp_path: Path) -> None:
    stored = await push(client, ref, artifact(("model.onnx", MODEL)))
    await push(client, ref, artifact(("model.onnx", b"other")))
    assert (await fetch(make_source(ref.with_digest(stored.digest)), tmp_path)).size == 7000


@pytest.mark.parametrize("path", ["", "models/model.onnx", "/models/model.onnx"])
async def test_a_file_in_an_image(client: RegistryClient, ref: Reference, tmp_path: Path, path: str) -> None:
    _, base = make_layer("etc/os-release", b"tiny")
    layers = [
        (base, OCI_LAYER_ZSTD, ""),
        (gzip.compress(make_tar(("models/model.onnx", MODEL))), OCI_LAYER_GZIP, ""),
    ]
    await push(client, ref, layers)
    assert (await fetch(make_source(ref, path), tmp_path)).path.read_bytes() == MODEL
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["model.onnx"]


async def test_the_upper_layer_hides_the_lower(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    _, lower = make_layer("models/model.onnx", b"old")
    _, upper = make_layer("models/model.onnx", MODEL)
    await push(client, ref, [(lower, OCI_LAYER_ZSTD, ""), (upper, OCI_LAYER_ZSTD, "")])
    assert (await fetch(make_source(ref), tmp_path)).path.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("whiteout", "gone"),
    [
        ("models/.wh.a.onnx", True),
        (".wh.models", True),
        ("models/.wh..wh..opq", True),
        (".wh..wh..opq", True),
        ("models/.wh.b.onnx", False),
        ("other/.wh..wh..opq", False),
    ],
)
async def test_what_an_upper_layer_takes_away_is_not_seen(
    client: RegistryClient, ref: Reference, tmp_path: Path, whiteout: str, *, gone: bool
) -> None:
    lower = make_tar(("models/a.onnx", MODEL))
    upper = make_tar((whiteout, b""), ("other/notes.txt", b"-"))
    await push(client, ref, [(lower, OCI_LAYER_TAR, ""), (upper, OCI_LAYER_TAR, "")])
    if gone:
        assert "holds no .onnx file" in (await failure_of(make_source(ref), tmp_path)).message
    else:
        assert (await fetch(make_source(ref), tmp_path)).size == 7000


@pytest.mark.parametrize(("name", "shown"), [("models/a.onnx", "models/a.onnx"), ("models", "models")])
async def test_a_link_above_hides_the_older_file(
    client: RegistryClient, ref: Reference, tmp_path: Path, name: str, shown: str
) -> None:
    lower = make_tar(("models/a.onnx", b"old"))
    upper = make_tar(special(name, tarfile.SYMTYPE, "v2/a.onnx"), ("v2/a.onnx", MODEL))
    await push(client, ref, [(lower, OCI_LAYER_TAR, ""), (upper, OCI_LAYER_TAR, "")])
    failure = await failure_of(make_source(ref, "models/a.onnx"), tmp_path)
    assert failure.reason is Reason.SOURCE_INVALID
    assert f"but a link '{shown}': name the file that it leads to" in failure.message
    assert (await fetch(make_source(ref), tmp_path)).name == "a.onnx"
    assert (await fetch(make_source(ref, "v2/a.onnx"), tmp_path)).size == 7000


async def test_a_file_above_takes_the_place_of_an_older_link(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    lower = make_tar(special("models/a.onnx", tarfile.SYMTYPE, "b.onnx"), ("models/b.onnx", b"old"))
    upper = make_tar(("models/a.onnx", MODEL))
    await push(client, ref, [(lower, OCI_LAYER_TAR, ""), (upper, OCI_LAYER_TAR, "")])
    assert (await fetch(make_source(ref, "models/a.onnx"), tmp_path)).size == 7000


async def test_a_layer_takes_nothing_of_its_own_away(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    lower = make_tar(("models/a.onnx", b"old"))
    upper = make_tar(("models/.wh..wh..opq", b""), ("models/b.onnx", MODEL))
    await push(client, ref, [(lower, OCI_LAYER_TAR, ""), (upper, OCI_LAYER_TAR, "")])
    assert (await fetch(make_source(ref), tmp_path)).name == "b.onnx"


async def test_an_index_leads_to_any_child(client: RegistryClient, ref: Reference, tmp_path: Path) -> None:
    child = await push(client, ref, artifact(("model.onnx", MODEL)))
    await client.put_manifest(ref, make_index([child]), OCI_INDEX)
    assert (await fetch(make_source(ref), tmp_path)).size == 7000


async def test_several_models_need_a_path(client: RegistryClient, ref: Reference, tmp_path: Path) -> None:
    await push(client, ref, artifact(("a.onnx", MODEL), ("b.onnx", b"other")))
    failure = await failure_of(make_source(ref), tmp_path)
    assert failure.reason is Reason.SOURCE_INVALID
    assert "(a.onnx, b.onnx): name one by `path`" in failure.message
    assert (await fetch(make_source(ref, "a.onnx"), tmp_path)).size == 7000


async def test_several_models_in_layers_need_a_path(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    layers: Layers = [(make_layer(f"{name}.onnx", MODEL)[1], OCI_LAYER_ZSTD, "") for name in "ab"]
    await push(client, ref, layers)
    failure = await failure_of(make_source(ref), tmp_path)
    assert failure.reason is Reason.SOURCE_INVALID
    assert "a.onnx, b.onnx" in failure.message


@pytest.mark.parametrize(("path", "what"), [("", "no .onnx file"), ("x.onnx", "no file 'x.onnx'")])
async def test_nothing_fits(
    client: RegistryClient, ref: Reference, tmp_path: Path, path: str, what: str
) -> None:
    await push(client, ref, [(make_layer("weights.bin", MODEL)[1], OCI_LAYER_ZSTD, "")])
    failure = await failure_of(make_source(ref, path), tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_INVALID, False)
    assert what in failure.message


async def test_the_file_must_have_the_sha256(client: RegistryClient, ref: Reference, tmp_path: Path) -> None:
    await push(client, ref, artifact(("model.onnx", b"other")))
    failure = await failure_of(make_source(ref), tmp_path)
    assert failure.reason is Reason.SOURCE_DIGEST_MISMATCH


async def test_a_large_layer_is_refused_unread(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    await push(client, ref, artifact(("model.onnx", MODEL)))
    failure = await failure_of(make_source(ref), tmp_path, max_bytes=6999)
    assert failure.reason is Reason.SOURCE_TOO_LARGE
    assert not any(tmp_path.iterdir())


async def test_an_image_that_does_not_exist(ref: Reference, tmp_path: Path) -> None:
    failure = await failure_of(make_source(ref), tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_NOT_FOUND, True)


async def test_a_registry_at_a_forbidden_address_is_refused(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    await push(client, ref, artifact(("model.onnx", MODEL)))
    with pytest.raises(BuildError) as caught:
        await fetch_all(make_source(ref), ONNX, tmp_path, Allowance(AddressPolicy(), 1 << 20, 60))
    assert caught.value.failure.reason is Reason.SOURCE_FORBIDDEN_ADDRESS
    assert "is a loopback address" in caught.value.failure.message


async def test_a_registry_of_the_configuration_may_lie_anywhere(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    await push(client, ref, artifact(("model.onnx", MODEL)))
    guarded = Allowance(AddressPolicy(), 1 << 20, 60)
    source = make_source(ref)
    access = access_to(source, configured=True)
    fetched = await fetch_source(Source(oci=source), ONNX, tmp_path, guarded, access)
    assert fetched.files[0].size == 7000


async def test_a_model_and_its_weights_are_found_by_their_suffixes_or_titles(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    await push(client, ref, artifact(("ir/line.xml", b"<net/>"), ("ir/line.bin", MODEL), ("notes.txt", b"-")))
    want = Want((".xml",), (".bin",), same_stem=True)
    for paths in (("", ""), ("ir/line.xml", "ir/line.bin")):
        weights = OciFile(path=paths[1], sha256=sha256(MODEL))
        source = OciSource(reference=str(ref), path=paths[0], sha256=sha256(b"<net/>"), weights=weights)
        fetched = await fetch_all(source, want, tmp_path)
        assert [file.path.read_bytes() for file in fetched.files] == [b"<net/>", MODEL]
        assert [file.name for file in fetched.files] == ["line.xml", "line.bin"]


WEIGHT = "application/vnd.cncf.model.weight.v1"
MODEL_DOC = "application/vnd.cncf.model.doc.v1.raw"
FILE_PATH = "org.cncf.model.filepath"


@pytest.mark.parametrize("key", [FILE_PATH, "org.cnai.model.filepath"])
@pytest.mark.parametrize("path", ["", "onnx/model.onnx"])
async def test_a_modelpack_of_raw_files(
    client: RegistryClient, ref: Reference, tmp_path: Path, key: str, path: str
) -> None:
    layers = [
        (b"read me", MODEL_DOC, {key: "README.md"}),
        (MODEL, f"{WEIGHT}.raw", {key: "onnx/model.onnx"}),
        (b"tensors", f"{WEIGHT}.raw", {key: "onnx/model.onnx.data"}),
    ]
    await push_annotated(client, ref, layers)
    weights = OciFile(path="onnx/model.onnx.data" if path else "")
    source = OciSource(reference=str(ref), path=path, sha256=sha256(MODEL), weights=weights)
    fetched = await fetch_all(source, ONNX, tmp_path)
    assert [(file.name, file.path.read_bytes()) for file in fetched.files] == [
        ("model.onnx", MODEL),
        ("model.onnx.data", b"tensors"),
    ]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("tar", bytes), ("tar+gzip", gzip.compress), ("tar+zstd", zstandard.compress)],
    ids=["tar", "gzip", "zstd"],
)
@pytest.mark.parametrize(
    "kind", [WEIGHT, "application/vnd.kitops.modelkit.model.v1"], ids=["ModelPack", "KitOps"]
)
async def test_a_model_in_the_tar_layers_of_a_modelpack_or_modelkit(
    client: RegistryClient,
    ref: Reference,
    tmp_path: Path,
    *,
    kind: str,
    suffix: str,
    pack: Callable[[bytes], bytes],
) -> None:
    data = pack(make_tar(("data/other.onnx", b"training data")))
    packed = pack(make_tar(("./models/line.onnx", MODEL), ("./models/line.data", b"tensors")))
    layers = [
        (packed, f"{kind}.{suffix}", {FILE_PATH: "models"}),
        (data, "application/vnd.kitops.modelkit.dataset.v1.tar", {}),
        (data, "application/vnd.cncf.model.code.v1.tar+gzip", {FILE_PATH: "data"}),
    ]
    await push_annotated(client, ref, layers)
    source = OciSource(reference=str(ref), weights=OciFile(path="models/line.data"))
    fetched = await fetch_all(source, ONNX, tmp_path)
    assert [(file.name, file.path.read_bytes()) for file in fetched.files] == [
        ("line.onnx", MODEL),
        ("line.data", b"tensors"),
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


async def test_a_layer_is_fetched_once_for_all_its_files(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    layer = make_tar(("line.onnx", MODEL), ("line.data", b"tensors"))
    await push_annotated(client, ref, [(layer, "application/vnd.kitops.modelkit.model.v1.tar", {})])
    source = OciSource(
        reference=f"{faulty.host}/{ref.repository}:{ref.tag}", weights=OciFile(path="line.data")
    )
    assert len((await fetch_all(source, ONNX, tmp_path)).files) == 2
    assert len(faulty.requests("GET", "/blobs/")) == 1
    assert len(faulty.requests("GET", "/manifests/")) == 1


async def test_a_folder_that_oras_packed(client: RegistryClient, ref: Reference, tmp_path: Path) -> None:
    packed = gzip.compress(make_tar(special("exports", tarfile.DIRTYPE), ("exports/model.onnx", MODEL)))
    annotations = {TITLE: "exports", "io.deis.oras.content.unpack": "true"}
    await push_annotated(client, ref, [(packed, OCI_LAYER_GZIP, annotations)])
    assert (await fetch(make_source(ref), tmp_path)).path.read_bytes() == MODEL


async def test_a_titled_file_is_no_tar_whatever_its_type_says(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    await push(client, ref, [(b"no tar", OCI_LAYER_TAR, "notes.txt")])
    failure = await failure_of(make_source(ref), tmp_path)
    assert failure.message == f"{ref} holds no .onnx file."


async def test_without_a_sha256_the_digest_is_told(
    client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    await push(client, ref, artifact(("model.onnx", MODEL)))
    fetched = await fetch_all(OciSource(reference=str(ref)), ONNX, tmp_path)
    assert [file.sha256 for file in fetched.fetched] == [sha256(MODEL)]


async def test_an_archive_in_an_artifact(client: RegistryClient, ref: Reference, tmp_path: Path) -> None:
    packed = pack({"m/model.onnx": MODEL, "m/w.data": b"tensors"}, "zip")
    await push(client, ref, artifact(("README.md", b"-"), ("models.zip", packed)))
    source = Source(oci=OciSource(reference=str(ref)), archive=Archive())
    access = access_to(OciSource(reference=str(ref)))
    want = replace(ONNX, beside=True)
    fetched = await fetch_source(source, want, tmp_path, ALLOWED, access)
    assert [file.name for file in fetched.files] == ["model.onnx", "w.data"]
    assert [(file.name, file.sha256) for file in fetched.fetched] == [("models.zip", sha256(packed))]
