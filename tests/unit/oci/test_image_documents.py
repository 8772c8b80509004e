"""Manifests, indexes, configurations and grafting."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgemodel_operator.oci.descriptor import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    canonical_json,
    sha256_digest,
)
from edgemodel_operator.oci.image import (
    MAX_LAYERS,
    Image,
    InvalidImage,
    RuntimeSettings,
    graft,
    make_image,
    make_index,
    parse_index,
    parse_manifest,
    platform_of,
)
from edgemodel_operator.oci.layer import Layer

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
ARM_V7, ARM_V6 = Platform("linux", "arm", "v7"), Platform("linux", "arm", "v6")


def _layer(name: str) -> Layer:
    return Layer(Descriptor.of(OCI_LAYER_ZSTD, name.encode()), sha256_digest(f"tar of {name}".encode()))


def _runtime(platform: Platform = AMD64) -> Image:
    settings = RuntimeSettings(
        entrypoint=["/serve"], env=["A=1"], user="65532", labels={"kind": "runtime", "title": "old"}
    )
    return make_image(platform, [_layer("base"), _layer("wheels")], settings)


def test_a_made_image_can_be_read_back() -> None:
    image = _runtime()
    manifest = parse_manifest(image.manifest)
    assert manifest.config == image.config_descriptor
    assert [layer.digest for layer in manifest.layers] == [
        _layer(n).descriptor.digest for n in ("base", "wheels")
    ]
    config = json.loads(image.config)
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert config["config"] == {
        "Entrypoint": ["/serve"],
        "Env": ["A=1"],
        "User": "65532",
        "Labels": {"kind": "runtime", "title": "old"},
    }
    assert image.descriptor.platform == platform_of(image.config) == AMD64


def test_grafting_adds_on_top_and_changes_nothing_below() -> None:
    runtime = _runtime()
    grafted = graft(
        runtime.manifest,
        runtime.config,
        [_layer("model")],
        labels={"title": "new"},
        annotations={"model": "m"},
    )
    before, after = parse_manifest(runtime.manifest), parse_manifest(grafted.manifest)
    assert after.layers == (*before.layers, _layer("model").descriptor)
    assert after.annotations == {"model": "m"}
    old, new = json.loads(runtime.config), json.loads(grafted.config)
    assert new["rootfs"]["diff_ids"] == [*old["rootfs"]["diff_ids"], _layer("model").diff_id]
    assert new["config"].pop("Labels") == {"kind": "runtime", "title": "new"}
    old["config"].pop("Labels")
    assert new["config"] == old["config"]
    assert grafted == graft(
        runtime.manifest,
        runtime.config,
        [_layer("model")],
        labels={"title": "new"},
        annotations={"model": "m"},
    )


def test_grafting_keeps_history_in_step_with_layers() -> None:
    runtime = _runtime()
    config = json.loads(runtime.config)
    config["history"] = [{"created_by": "one"}, {"created_by": "two"}]
    config["unknown"] = {"kept": True}
    body = canonical_json(config)
    manifest = json.loads(runtime.manifest)
    manifest["config"] = Descriptor.of(OCI_CONFIG, body).to_json()
    grafted = json.loads(graft(canonical_json(manifest), body, [_layer("model")]).config)
    assert len(grafted["history"]) == len(grafted["rootfs"]["diff_ids"]) == 3
    assert grafted["unknown"] == {"kept": True}


def test_grafting_sets_the_time_to_the_epoch() -> None:
    runtime = _runtime(AMD64)
    body = canonical_json({**json.loads(runtime.config), "created": "2026-11-21T18:00:00Z"})
    manifest = {**json.loads(runtime.manifest), "config": Descriptor.of(OCI_CONFIG, body).to_json()}
    grafted = json.loads(graft(canonical_json(manifest), body, [_layer("model")]).config)
    assert grafted["created"] == "1970-01-01T00:00:00Z"


def test_a_docker_runtime_becomes_an_oci_image() -> None:
    config = canonical_json(
        {"os": "linux", "architecture": "arm64", "rootfs": {"type": "layers", "diff_ids": ["sha256:x"]}}
    )
    layer = Descriptor.of("application/vnd.docker.image.rootfs.diff.tar.gzip", b"layer")
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": Descriptor.of("application/vnd.docker.container.image.v1+json", config).to_json(),
            "layers": [layer.to_json()],
        }
    )
    grafted = graft(manifest, config, [_layer("model")])
    parsed = parse_manifest(grafted.manifest)
    assert json.loads(grafted.manifest)["mediaType"] == OCI_MANIFEST
    assert parsed.config.media_type == OCI_CONFIG
    assert [below.media_type for below in parsed.layers] == [OCI_LAYER_GZIP, OCI_LAYER_ZSTD]
    assert parsed.layers[0].digest == layer.digest


def test_a_configuration_of_another_image_is_refused() -> None:
    with pytest.raises(InvalidImage, match="not the one"):
        graft(_runtime(AMD64).manifest, _runtime(ARM64).config, [_layer("model")])


def test_a_configuration_with_missing_layers_is_refused() -> None:
    runtime = _runtime()
    manifest = json.loads(runtime.manifest)
    manifest["layers"].pop()
    with pytest.raises(InvalidImage, match="lists 2 layers, the manifest 1"):
        graft(canonical_json(manifest), runtime.config, [_layer("model")])


def test_more_layers_than_a_node_can_mount_are_refused() -> None:
    runtime = _runtime()
    with pytest.raises(InvalidImage, match="too many"):
        graft(runtime.manifest, runtime.config, [_layer(str(n)) for n in range(MAX_LAYERS - 1)])


def test_an_index_does_not_depend_on_the_order_of_its_children() -> None:
    children = [_runtime(platform).descriptor for platform in (AMD64, ARM64, ARM_V7)]
    index = make_index(children, {"model": "m"})
    assert make_index(list(reversed(children)), {"model": "m"}) == index
    parsed = parse_index(index)
    assert set(parsed.manifests) == set(children)
    assert parsed.annotations == {"model": "m"}


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        (AMD64, [AMD64, ARM64], AMD64),
        (ARM64, [AMD64], None),
        (ARM_V7, [ARM_V6, ARM_V7], ARM_V7),
        (ARM_V7, [ARM_V6], None),
        (Platform("linux", "arm64", "v8"), [ARM64], ARM64),
        (ARM64, [Platform("linux", "arm64", "v8")], Platform("linux", "arm64", "v8")),
    ],
)
def test_the_child_for_a_platform_is_chosen(
    wanted: Platform, offered: list[Platform], chosen: Platform | None
) -> None:
    index = parse_index(make_index([_runtime(platform).descriptor for platform in offered]))
    child = index.choose(wanted)
    assert (child.platform if child else None) == chosen


_CHILD = _runtime().descriptor.to_json()
_MANIFEST = json.loads(_runtime().manifest)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"manifests": None},
        {"manifests": {}},
        {"manifests": [{"digest": "x"}]},
        {"manifests": [_CHILD], "layers": []},
        {"manifests": [_CHILD], "config": {}},
        {"manifests": [_CHILD], "mediaType": OCI_MANIFEST},
        {"manifests": [_CHILD] * 200},
        {"manifests": [], "annotations": {"a": 1}},
        {"manifests": [], "subject": {"digest": "x"}},
        _MANIFEST,
    ],
)
def test_what_is_not_plainly_an_index_is_refused(document: Any) -> None:
    with pytest.raises(InvalidImage):
        parse_index(canonical_json(document))


@pytest.mark.parametrize(
    "change",
    [{"manifests": []}, {"mediaType": OCI_INDEX}, {"config": None}, {"layers": None}, {"layers": [{}]}],
)
def test_what_is_not_plainly_a_manifest_is_refused(change: dict[str, Any]) -> None:
    parse_manifest(canonical_json(_MANIFEST))
    with pytest.raises(InvalidImage):
        parse_manifest(canonical_json({**_MANIFEST, **change}))


@pytest.mark.parametrize("body", [b"", b"[", b"null", b"\xff", b"[" * 100_000, b'"text"'])
def test_bodies_that_are_no_json_objects_are_refused(body: bytes) -> None:
    for parse in (parse_index, parse_manifest, platform_of):
        with pytest.raises(InvalidImage):
            parse(body)
