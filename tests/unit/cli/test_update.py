"""What an update moves, platform by platform, and how it is written down."""

from __future__ import annotations

import pytest

from edgemodel_operator.cli.image_facts import Attached, ImageFacts, PlatformImage
from edgemodel_operator.cli.inspect_report import ImageReport, UpdateReport, size_text
from edgemodel_operator.cli.update import Move, compare
from edgemodel_operator.oci.descriptor import OCI_LAYER_ZSTD, Descriptor, sha256_digest
from edgemodel_operator.oci.reference import parse_reference

NAME = "registry.plant-a.local/models/line"


def layer(name: str, size: int) -> Descriptor:
    return Descriptor(OCI_LAYER_ZSTD, sha256_digest(name.encode()), size)


BASE, RUNTIME, WEIGHTS = layer("base", 15_000_000), layer("runtime", 40_000_000), layer("weights", 22_000_000)


def image(name: str, *platforms: tuple[str, tuple[Descriptor, ...]]) -> ImageFacts:
    digest = sha256_digest(name.encode())
    annotations = {"org.opencontainers.image.title": "line", "org.opencontainers.image.version": name}
    images = tuple(
        PlatformImage(platform, sha256_digest(f"{name} {platform}".encode()), layers, 3_000)
        for platform, layers in platforms
    )
    return ImageFacts(parse_reference(NAME).with_digest(digest), annotations, images)


OLD = image("1", ("linux/amd64", (BASE, RUNTIME, WEIGHTS, layer("head 1", 1_000_000))))
NEW = image("2", ("linux/amd64", (BASE, RUNTIME, WEIGHTS, layer("head 2", 1_200_000))))


def test_only_new_layers_and_the_documents_move() -> None:
    (move,) = compare(OLD, NEW).moves
    assert move == Move("linux/amd64", 1, 4, 1_203_000, 77_000_000)


def test_nothing_moves_for_the_same_image() -> None:
    (move,) = compare(OLD, OLD).moves
    assert (move.moved_layers, move.moved_bytes) == (0, 0)


def test_a_layer_that_is_there_twice_moves_once() -> None:
    doubled = image("3", ("linux/amd64", (BASE, WEIGHTS, WEIGHTS)))
    (move,) = compare(image("0", ("linux/amd64", (BASE,))), doubled).moves
    assert (move.layers, move.moved_bytes) == (2, WEIGHTS.size + 3_000)


def test_a_platform_that_is_new_moves_whole_and_one_that_is_gone_is_named() -> None:
    other = image("4", ("linux/arm64", (BASE, RUNTIME)))
    update = compare(OLD, other)
    assert update.gone == ("linux/amd64",)
    assert update.moves == (Move("linux/arm64", 2, 2, 55_003_000, 0),)


def test_an_update_is_written_for_people() -> None:
    lines = UpdateReport(OLD, NEW, compare(OLD, NEW)).lines()
    assert lines[-1] == "linux/amd64: moves 1.2 MB in 1 of 4 layers, keeps 77.0 MB"
    gone = UpdateReport(OLD, image("5"), compare(OLD, image("5"))).lines()
    assert gone[-1] == "linux/amd64: is not in the newer image"


def test_an_image_is_written_for_people() -> None:
    attached = [
        Attached("provenance", str(OLD.image.digest), sha256_digest(b"p"), 3_100, "built by a builder"),
        Attached("bill of materials", OLD.platforms[0].digest, sha256_digest(b"s"), 45_000, "SPDX-2.3"),
    ]
    text = "\n".join(ImageReport(OLD, {BASE.digest: "etc, usr/bin"}, attached).lines())
    assert f"{NAME}@{OLD.image.digest}" in text
    assert "  model      line" in text
    assert "  stored     78.0 MB in 4 layers of all platforms" in text
    assert f"linux/amd64: 78.0 MB in 4 layers, {OLD.platforms[0].digest}" in text
    assert f"  {BASE.digest[:19]}    15.0 MB  tar+zstd  etc, usr/bin" in text
    assert "  index         provenance            3.1 kB  built by a builder" in text
    assert "  linux/amd64   bill of materials    45.0 kB  SPDX-2.3" in text


def test_an_image_without_anything_attached_says_so() -> None:
    assert ImageReport(OLD, {}, []).lines()[-1] == "nothing is attached"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_234_567, "1.2 MB"), (2_500_000_000, "2.5 GB")],
)
def test_sizes_are_written_in_steps_of_a_thousand(size: int, text: str) -> None:
    assert size_text(size) == text
