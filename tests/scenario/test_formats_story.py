"""Models of other formats: the class names the runtime for each, and says which it cannot run."""

from __future__ import annotations

import pytest

from edgemodel_operator.api.acceleratorclass import AcceleratorClass, AcceleratorClassSpec
from support.builders import NPU_RESOURCE, ModelBuilder, fleet, make_class, make_model, make_node
from support.simulator import installed, model_labels, start

WEIGHTS = {"url": "https://files.example.com/line.bin", "sha256": "1" * 64}


def simple(version: str, model_format: str = "ONNX") -> ModelBuilder:
    model = make_model(version).with_waves(1, "100%").probation(5).with_("model.format", model_format)
    return model.with_("model.source.http.weights", WEIGHTS) if model_format == "OpenVINO" else model


def tpu_class(model_format: str = "TFLite") -> AcceleratorClassSpec:
    """Give a class that runs one format."""
    runtime = {"format": model_format, "variant": "litert-tpu", "provider": "edgetpu"}
    spec = {"match": {"extendedResource": NPU_RESOURCE}, "runtimes": [runtime], "sharing": "Shared"}
    return AcceleratorClass.model_validate({"spec": spec}).spec


@pytest.mark.parametrize(
    ("model_format", "variant", "provider"),
    [
        ("ONNX", "onnxruntime-cpu", "CPUExecutionProvider"),
        ("TFLite", "litert-cpu", "CPU"),
        ("OpenVINO", "openvino", "CPU"),
    ],
)
def test_every_format_runs_on_every_cpu(model_format: str, variant: str, provider: str) -> None:
    simulation = installed(simple("v1", model_format), fleet(2))
    assert [image.variant for image in simulation.status.images] == [variant]
    (target,) = simulation.status.revisions[0].targets
    assert (target.image, target.provider) == (simulation.status.images[0].image, provider)
    assert simulation.serving("edge-1") == simulation.serving("edge-2") == {"v1"}


def test_each_rung_of_the_ladder_has_its_own_runtime_for_the_format() -> None:
    nodes = [make_node("edge-1").offering(NPU_RESOURCE), make_node("edge-2")]
    simulation = installed(simple("v1", "TFLite").on("tpu", "cpu"), nodes, classes={"tpu": tpu_class()})
    assert [image.variant for image in simulation.status.images] == ["litert-cpu", "litert-tpu"]
    assert {item.accelerator: item.nodes for item in simulation.status.targets} == {"tpu": 1, "cpu": 1}


def test_a_new_version_may_have_another_format() -> None:
    simulation = installed(simple("v1"), fleet(2))
    simulation.apply(simple("v2", "OpenVINO"))
    simulation.run_to_rest()
    assert simulation.serving("edge-1") == simulation.serving("edge-2") == {"v2"}
    assert [image.variant for image in simulation.status.images] == ["openvino"]


def test_a_class_that_cannot_run_the_format_is_named_with_those_that_can() -> None:
    simulation = start(simple("v1", "TFLite").on("npu", "cpu"), fleet(1), classes={"npu": make_class()})
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "FormatNotSupported"
    assert simulation.condition("Stalled").status == "True"
    message = simulation.condition("SourceResolved").message
    assert message.startswith("AcceleratorClass npu has no runtime for TFLite models")
    assert message.endswith("name one of these in targets: cpu")
    assert model_labels(simulation) == []


def test_a_class_that_loses_a_format_keeps_the_nodes_that_run_it() -> None:
    nodes = [make_node("edge-1").offering(NPU_RESOURCE), make_node("edge-2")]
    simulation = installed(simple("v1", "TFLite").on("tpu", "cpu"), nodes, classes={"tpu": tpu_class()})
    simulation.classes["tpu"] = tpu_class("ONNX")
    simulation.touch()
    simulation.run_to_rest()
    assert simulation.condition("Stalled").status == "True"
    assert simulation.serving("edge-1") == simulation.serving("edge-2") == {"v1"}
    simulation.join(make_node("edge-3").offering(NPU_RESOURCE))
    simulation.run_to_rest()
    taken = {name: set(node.labels.values()) for name, node in simulation.cluster.nodes.items()}
    assert [value.endswith(".tpu") for value in taken["edge-1"]] == [True]
    assert taken["edge-3"] == set()


def test_a_node_whose_architecture_the_runtime_lacks_says_so() -> None:
    nodes = [make_node("edge-1"), make_node("edge-2").arm64()]
    simulation = start(simple("v1", "OpenVINO"), nodes, platforms=("linux/amd64",))
    simulation.run_to_rest()
    assert simulation.serving("edge-1") == {"v1"}
    assert [report.reason for report in simulation.status.node_reports] == ["NoTargetFits"]
