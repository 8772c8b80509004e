"""Revisions: whatever changes a pod gives another name, whatever does not leaves it."""

from __future__ import annotations

import pytest

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.edgemodel_status import Revision
from edgemodel_operator.core.placement import CPU_CLASS
from edgemodel_operator.core.revision import make_revision
from support.builders import ModelBuilder, make_class, make_model

BASE = make_model().on("npu", "cpu").with_golden()
IMAGES = {
    "onnxruntime-npu": f"registry.example.com:5000/models/line@sha256:{'1' * 64}",
    "onnxruntime-cpu": f"registry.example.com:5000/models/line@sha256:{'2' * 64}",
}


def revision(
    model: ModelBuilder = BASE,
    *,
    npu: AcceleratorClassSpec | None = None,
    images: dict[str, str] | None = None,
    golden: str = "{}",
) -> Revision:
    classes = {"npu": npu or make_class(), "cpu": CPU_CLASS}
    return make_revision("line", model.build(), classes, IMAGES | (images or {}), golden)


@pytest.mark.parametrize(
    "model",
    [
        BASE.version("v2"),
        BASE.on("cpu", "npu"),
        BASE.on("cpu"),
        BASE.with_golden(tolerance="1e-2"),
        BASE.with_("serving.ports.http", 9090),
        BASE.with_("health.requireAccelerator", False),
        BASE.with_("image.pullSecrets", [{"name": "registry"}]),
        make_model().on("npu", "cpu"),
    ],
)
def test_what_changes_a_pod_is_another_revision(model: ModelBuilder) -> None:
    assert revision(model).name != revision().name


def test_other_inputs_that_change_a_pod_are_another_revision() -> None:
    others = [
        revision(npu=make_class(env={"A": "1"})),
        revision(npu=make_class(sharing="Shared")),
        revision(npu=make_class(resource="vendor.example/tpu")),
        revision(images={"onnxruntime-cpu": f"registry.example.com:5000/models/line@sha256:{'3' * 64}"}),
        revision(golden='{"inputs": []}'),
    ]
    assert len({revision().name, *(other.name for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    "model",
    [
        BASE.with_waves("100%"),
        BASE.paused(),
        BASE.max_failures(5),
        BASE.probation(1),
        BASE.deadline(60),
        BASE.selecting(line="4"),
        BASE.with_golden("another-name-for-the-same-text"),
        BASE.with_("model.source.http.url", "https://mirror.example.com/line.onnx"),
    ],
)
def test_what_changes_no_pod_is_the_same_revision(model: ModelBuilder) -> None:
    assert revision(model) == revision()


def test_the_name_is_that_of_the_content_in_every_process() -> None:
    stored = Revision.model_validate(revision().to_raw())
    assert stored == revision()
    assert len(stored.name) == 10
    assert int(stored.name, 16) >= 0


def test_the_platforms_of_the_images_are_remembered_and_change_no_name() -> None:
    classes = {"npu": make_class(), "cpu": CPU_CLASS}
    platforms = {"onnxruntime-cpu": ("linux/amd64",)}
    known = make_revision("line", BASE.build(), classes, IMAGES, "{}", platforms=platforms)
    assert [target.platforms for target in known.targets] == [(), ("linux/amd64",)]
    assert known.name == revision().name
