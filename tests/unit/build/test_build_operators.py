"""Whether a runtime has every operator of a model, and what is said where it has not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from edgemodel_operator.api.edgemodel_status import ModelReport, OperatorSet
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.operators import LABEL, VARIANT_LABEL, Use, check_operators, uses_of
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.descriptor import Platform

SUPPORTED = {
    "ONNX": {
        "ai.onnx": {"Add": [[7, 26]], "Gelu": [[20, 26]], "Upsample": [[7, 9]], "Odd": [[1, 2], [5, 26]]},
        "com.microsoft": {"QuickGelu": [[1, 1]]},
    },
    "TFLite": {"builtin": {"CONV_2D": [[1, 8]]}, "custom": {"Mfcc": [[1, 1]]}},
    "OpenVINO": {"opset": {"relu": [[1, 16]], "gelu": [[2, 2], [7, 16]]}},
}


def child(label: Any = SUPPORTED, architecture: str = "amd64") -> RuntimeChild:
    labels = {VARIANT_LABEL: "onnxruntime-cpu"} | ({} if label is None else {LABEL: json.dumps(label)})
    return with_config({"config": {"Labels": labels}}, architecture)


def with_config(config: Mapping[str, Any], architecture: str = "amd64") -> RuntimeChild:
    return RuntimeChild(Platform("linux", architecture), "sha256:0", b"{}", json.dumps(config).encode())


def report(*operators: str, **sets: int) -> ModelReport:
    return ModelReport(
        operators=operators,
        operator_sets=tuple(
            OperatorSet(domain=domain.replace("_", "."), version=version) for domain, version in sets.items()
        ),
    )


def refusal(model: ModelReport, model_format: ModelFormat, *children: RuntimeChild) -> str:
    with pytest.raises(BuildError) as caught:
        check_operators(model, model_format, children or [child()])
    assert caught.value.failure.reason is Reason.OPERATORS_NOT_SUPPORTED
    assert not caught.value.failure.retryable
    return caught.value.failure.message


def test_versions_come_from_the_operator_or_from_its_set() -> None:
    onnx = report("Add", "com.microsoft:QuickGelu", "own:Fancy", ai_onnx=17, com_microsoft=1)
    assert list(uses_of(onnx, ModelFormat.ONNX)) == [
        Use("ai.onnx", "Add", 17),
        Use("com.microsoft", "QuickGelu", 1),
        Use("own", "Fancy", 1),
    ]
    assert list(uses_of(report("CONV_2D@3", "custom:A:B@2"), ModelFormat.TFLITE)) == [
        Use("builtin", "CONV_2D", 3),
        Use("custom:A", "B", 2),
    ]
    assert list(uses_of(report("ReLU@1"), ModelFormat.OPENVINO)) == [Use("opset", "ReLU", 1)]


@pytest.mark.parametrize(
    ("model_format", "model"),
    [
        (ModelFormat.ONNX, report("Add", "com.microsoft:QuickGelu", ai_onnx=7, com_microsoft=1)),
        (ModelFormat.ONNX, report("Odd", ai_onnx=5)),
        (ModelFormat.TFLITE, report("CONV_2D@8", "custom:Mfcc@1")),
        (ModelFormat.OPENVINO, report("ReLU@1", "Gelu@7")),
    ],
)
def test_what_is_there_passes(model_format: ModelFormat, model: ModelReport) -> None:
    check_operators(model, model_format, [child(), child(architecture="arm64")])


@pytest.mark.parametrize(
    ("model_format", "model", "sentence"),
    [
        (
            ModelFormat.ONNX,
            report("Add", "Fancy", "com.example:Own", ai_onnx=17),
            (
                "The runtime onnxruntime-cpu for linux/amd64 lacks operators of the model: Fancy, "
                "com.example:Own. Export the model without them, or give the AcceleratorClass a runtime "
                "variant that has them."
            ),
        ),
        (
            ModelFormat.ONNX,
            report("Add", "Gelu", ai_onnx=27),
            (
                "Add of version 27 (it has 7 to 26), Gelu of version 27 (it has 20 to 26). Export the model "
                "with operator set 26, or give"
            ),
        ),
        (ModelFormat.ONNX, report("Add", ai_onnx=6), "Export the model with operator set 7, or give"),
        (ModelFormat.ONNX, report("Odd", ai_onnx=3), "Odd of version 3 (it has 1 to 2, 5 to 26)"),
        (
            ModelFormat.TFLITE,
            report("CONV_2D@9"),
            "CONV_2D of version 9 (it has 1 to 8). Convert the model with",
        ),
        (ModelFormat.TFLITE, report("custom:Fancy@1"), "lacks operators of the model: custom:Fancy"),
        (ModelFormat.OPENVINO, report("Gelu@5"), "Gelu of version 5 (it has 2, 7 to 16)"),
        (ModelFormat.OPENVINO, report("extension:Fancy"), "extension:Fancy. Export the model without them"),
    ],
)
def test_what_is_not_there_is_named_with_a_way_out(
    model_format: ModelFormat, model: ModelReport, sentence: str
) -> None:
    assert sentence in refusal(model, model_format)


def test_a_long_list_is_cut() -> None:
    names = [f"Own{number:02}" for number in range(20)]
    assert refusal(report(*names), ModelFormat.ONNX).count("Own") == 8


def test_every_platform_is_asked() -> None:
    other = child(SUPPORTED | {"ONNX": {}}, "arm64")
    assert "linux/arm64" in refusal(report("Add", ai_onnx=17), ModelFormat.ONNX, child(), other)


@pytest.mark.parametrize(
    "image",
    [
        child(None),
        child({"TFLite": {}}),
        with_config({}),
        with_config({"config": None}),
        with_config({"config": {"Labels": None}}),
    ],
)
def test_an_image_that_says_nothing_is_not_asked(image: RuntimeChild) -> None:
    check_operators(report("Fancy"), ModelFormat.ONNX, [image])


@pytest.mark.parametrize("label", [[], {"ONNX": 7}, {"ONNX": {"ai.onnx": {"Add": [[1]]}}}])
def test_a_malformed_label_is_the_fault_of_the_image(label: Any) -> None:
    with pytest.raises(BuildError, match="build the image again") as caught:
        check_operators(report("Add"), ModelFormat.ONNX, [child(label)])
    assert caught.value.failure.reason is Reason.RUNTIME_IMAGE_INVALID
