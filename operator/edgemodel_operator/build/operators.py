"""Does the runtime have every operator of a model? Asked before an image is made.

A runtime image says in its label `edgemodel.dev/operators` what it has: canonical JSON of format -> domain ->
operator -> ranges of versions (first and last, both included), such as

    {"ONNX":{"ai.onnx":{"Gelu":[[20,26]]}}}

| format | domain | version |
|---|---|---|
| ONNX | that of the operator set; `ai.onnx`: the standard one | of the set that the model imports |
| TFLite | `builtin`, `custom` | of the operator |
| OpenVINO | `opset` | the number of the set, 8 for `opset8`; names of operators in lower case |

An image without the label, or without the format in it, is not asked: pods find out when they start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.runtime import RuntimeChild

LABEL = "edgemodel.dev/operators"
VARIANT_LABEL = "dev.edgemodel.runtime"

Ranges: TypeAlias = Sequence[tuple[int, int]]
Operators: TypeAlias = Mapping[str, Mapping[str, Ranges]]
"""Domain -> operator -> the versions that there are."""

_LABEL_TYPE: TypeAdapter[Mapping[str, Operators]] = TypeAdapter(Mapping[str, Operators])
_STANDARD = {ModelFormat.ONNX: "ai.onnx", ModelFormat.TFLITE: "builtin", ModelFormat.OPENVINO: "opset"}
_SHOWN = 8


@dataclass(frozen=True)
class Use:
    """An operator that a model uses, in a version."""

    domain: str
    name: str
    version: int


@dataclass(frozen=True)
class Lack:
    """A use that the runtime has no operator for, and the versions in which it has one."""

    use: Use
    there: Ranges

    @property
    def text(self) -> str:
        """Name it, with the versions that the runtime has."""
        name = (
            self.use.name if self.use.domain in _STANDARD.values() else f"{self.use.domain}:{self.use.name}"
        )
        if not self.there:
            return name
        has = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in self.there)
        return f"{name} of version {self.use.version} (it has {has})"


def check_operators(
    report: ModelReport, model_format: ModelFormat, runtime_children: Sequence[RuntimeChild]
) -> None:
    """Hold a model against the runtime image of every platform.

    Raises BuildError: OperatorsNotSupported with the operators, the variant and what to do; or
    RuntimeImageInvalid where the label cannot be read.
    """
    for child in runtime_children:
        labels = _labels(child)
        supported = _supported(labels, child).get(model_format.value)
        if supported is None:
            continue
        lacks = list(find_lacks(uses_of(report, model_format), supported))
        if lacks:
            variant = labels.get(VARIANT_LABEL) or child.digest
            raise fail(Reason.OPERATORS_NOT_SUPPORTED, _sentence(lacks, model_format, variant, child))


def uses_of(report: ModelReport, model_format: ModelFormat) -> Iterator[Use]:
    """Read the operators of a report: `domain:Name@version`, of which only the name is always there."""
    sets = {entry.domain: entry.version for entry in report.operator_sets}
    for operator in report.operators:
        domain, colon, rest = operator.rpartition(":")
        name, _, version = rest.partition("@")
        domain = domain if colon else _STANDARD[model_format]
        yield Use(domain, name, int(version) if version.isdecimal() else sets.get(domain, 1))


def find_lacks(uses: Iterable[Use], supported: Operators) -> Iterator[Lack]:
    """Give the uses that the runtime has no operator for, in their order."""
    for use in uses:
        operators = supported.get(use.domain, {})
        there = operators.get(use.name) or operators.get(use.name.lower(), ())
        if not any(first <= use.version <= last for first, last in there):
            yield Lack(use, there)


def _sentence(lacks: Sequence[Lack], model_format: ModelFormat, variant: str, child: RuntimeChild) -> str:
    named = [lack.text for lack in lacks[:_SHOWN]] + ["…"] * (len(lacks) > _SHOWN)
    return (
        f"The runtime {variant} for {child.platform} lacks operators of the model: {', '.join(named)}. "
        f"{_advice(lacks, model_format)}"
    )


def _advice(lacks: Sequence[Lack], model_format: ModelFormat) -> str:
    other = "or give the AcceleratorClass a runtime variant that has them."
    if not all(lack.there for lack in lacks):
        return f"Export the model without them, {other}"
    low = max(lack.there[0][0] for lack in lacks)
    high = min(lack.there[-1][1] for lack in lacks)
    newer = any(lack.use.version > lack.there[-1][1] for lack in lacks)
    ways = {
        ModelFormat.ONNX: f"Export the model with operator set {high if newer else low}",
        ModelFormat.TFLITE: "Convert the model with an older converter",
        ModelFormat.OPENVINO: "Convert the model with the OpenVINO of the runtime or an older one",
    }
    return f"{ways[model_format]}, {other}"


def _labels(child: RuntimeChild) -> Mapping[str, str]:
    config = json.loads(child.config).get("config") or {}
    return config.get("Labels") or {}


def _supported(labels: Mapping[str, str], child: RuntimeChild) -> Mapping[str, Operators]:
    try:
        return _LABEL_TYPE.validate_json(labels.get(LABEL, "{}"))
    except ValidationError as error:
        raise fail(
            Reason.RUNTIME_IMAGE_INVALID,
            f"The label {LABEL} of the runtime image {child.digest} is malformed: build the image again, or "
            "take the label away.",
        ) from error
