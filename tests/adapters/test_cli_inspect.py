"""`edgemodel inspect`: what is in an image, in a registry or a folder, and what an update would move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.image_layout import LayoutStore, parse_location
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.keys import generate_key_pair, load_private_key
from edgemodel_operator.signing.sign import sign_image
from support.build import make_onnx, make_request, sha256, source_server
from support.command_line import edgemodel
from support.images import push_index
from support.registry import RegistryServer


@dataclass(frozen=True)
class Images:
    """Two versions of a model on one runtime image."""

    old: str
    new: str
    runtime: str


@pytest.fixture
async def images(client: RegistryClient, registry: RegistryServer) -> Images:
    ref = parse_reference(f"{registry.host}/runtimes/inspect:1")
    runtime = str(ref.with_digest((await push_index(client, ref)).digest))
    repository, built = f"{registry.host}/inspect/line", []
    async with source_server() as server:
        for seed in (1, 2):
            content = make_onnx(seed=seed)
            request = make_request(server.serve(content), content, runtime=runtime, repository=repository)
            built.append((await run_build(request)).image)
    return Images(built[0], built[1], runtime)


async def test_an_image_shows_its_model_its_layers_and_what_is_attached(
    client: RegistryClient, registry: RegistryServer, images: Images
) -> None:
    password = b"secret"
    key = load_private_key(generate_key_pair(password).private_pem, password)
    await sign_image(client, parse_reference(images.old), [key])
    shown = await edgemodel("inspect", images.old, "--plain-http", registry.host)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0] == images.old
    said = dict(line.strip().split("  ", 1) for line in lines[1:8] if "  " in line.strip())
    assert {name.strip(): value.strip() for name, value in said.items()} | {
        "model": "line-orientation",
        "version": "7",
        "format": "ONNX",
        "source": sha256(make_onnx(seed=1)),
        "runtime": images.runtime.rpartition("@")[2],
    } == {name.strip(): value.strip() for name, value in said.items()}
    assert any(line.endswith("manifest.json, model.onnx") for line in lines)
    attached = shown.out.partition("attached")[2]
    for word in ("index         provenance", "linux/amd64   bill of materials", "SPDX-2.3", "Sigstore bundle",
                 "simple signing", "built by "):  # fmt: skip
        assert word in attached


async def test_an_update_moves_what_is_new(registry: RegistryServer, images: Images) -> None:
    shown = await edgemodel("inspect", images.old, images.new, "--json", "--plain-http", registry.host)
    update = shown.json()
    assert (update["from"], update["to"]) == (images.old, images.new)
    assert [move["platform"] for move in update["platforms"]] == ["linux/amd64", "linux/arm64"]
    for move in update["platforms"]:
        assert (move["movedLayers"], move["layers"]) == (1, 2)
        assert 0 < move["movedBytes"] < 6_000
        assert move["keptBytes"] > 0


async def test_a_folder_is_inspected_as_a_registry_is(tmp_path: Path) -> None:
    place = parse_location(f"oci:{tmp_path}/images:7")
    stored = await push_index(LayoutStore(), place)
    shown = (await edgemodel("inspect", f"oci:{tmp_path}/images", "--json")).json()
    assert shown["image"] == f"oci:{tmp_path}/images@{stored.digest}"
    assert [image["platform"] for image in shown["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert [layer["holds"] for image in shown["platforms"] for layer in image["layers"]] == ["opt", "opt"]
    assert shown["attached"] == []


async def test_an_image_of_one_platform_needs_no_index(tmp_path: Path) -> None:
    store, place = LayoutStore(), parse_location(f"oci:{tmp_path}/images:7")
    await push_index(store, place)
    index = (await edgemodel("inspect", str(place), "--json")).json()
    child = index["platforms"][1]
    alone = await edgemodel("inspect", f"oci:{tmp_path}/images@{child['digest']}", "--json")
    assert alone.json()["platforms"] == [child]


@pytest.mark.parametrize(
    ("image", "code", "word"),
    [
        ("line:7", 2, "names no registry"),
        ("oci:{folder}/missing", 1, "holds no image"),
        ("{registry}/inspect/missing:1", 1, "missing"),
        ("{closed}/inspect/line:1", 3, "inspect"),
    ],
)
async def test_what_cannot_be_read_is_one_sentence(
    registry: RegistryServer, tmp_path: Path, image: str, code: int, word: str
) -> None:
    closed = "127.0.0.1:9"
    name = image.format(folder=tmp_path, registry=registry.host, closed=closed)
    shown = await edgemodel("inspect", name, "--plain-http", registry.host, "--plain-http", closed)
    assert (shown.code, shown.out) == (code, "")
    assert shown.err.startswith("error: ")
    assert word in shown.err
    assert "Traceback" not in shown.err
