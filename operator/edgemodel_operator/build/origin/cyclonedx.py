"""A bill of materials as CycloneDX 1.6 JSON, with the model as ML-BOM (https://cyclonedx.org/docs/1.6/json/).

Pure. Like the SPDX document it has no clock and no chance: its serial number comes from the image's digest.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from edgemodel_operator.api.edgemodel_status import ModelReport, ModelTensor
from edgemodel_operator.build.origin.contents import (
    NAMESPACE,
    TOOL,
    ImageContents,
    Material,
    ModelContents,
    NamedFile,
    image_purl,
)
from edgemodel_operator.build.origin.packages import Package
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.image import EPOCH

CYCLONEDX_TYPE = "application/vnd.cyclonedx+json"

_MODEL, _RUNTIME = "model", "runtime"
_KINDS = {"deb": "library", "pypi": "library", "oci": "container"}


def make_cyclonedx(image: ImageContents) -> bytes:
    """Make the document about one platform's image; the same contents give the same bytes."""
    model = image.model
    packages = tuple(sorted({package.purl: package for package in image.packages or ()}.values()))
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{NAMESPACE}/cyclonedx/{image.subject.digest}/{image.version}")
    top = {
        "type": "container",
        "bom-ref": image.purl,
        "name": model.name,
        "version": model.version,
        "purl": image.purl,
        "hashes": _hashes(image.subject.digest.removeprefix("sha256:")),
    }
    return canonical_json(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{serial}",
            "version": 1,
            "metadata": {
                "timestamp": EPOCH,
                "tools": {"components": [{"type": "application", "name": TOOL, "version": image.version}]},
                "component": top,
            },
            "components": [_model(model), _runtime(image), *(_of_purl(package) for package in packages)],
            "dependencies": [
                {"ref": image.purl, "dependsOn": [_MODEL, _RUNTIME]},
                {"ref": _RUNTIME, "dependsOn": [package.purl for package in packages]},
            ],
            "compositions": [
                # Where a model comes from in the end, its training and its data, no file tells.
                {"aggregate": "unknown", "assemblies": [_MODEL]},
                {"aggregate": image.coverage.value, "assemblies": [_RUNTIME]},
            ],
        }
    )


def _model(model: ModelContents) -> dict[str, Any]:
    parameters = {
        "inputs": [{"format": _tensor(tensor)} for tensor in model.report.inputs],
        "outputs": [{"format": _tensor(tensor)} for tensor in model.report.outputs],
    }
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": model.name,
        "version": model.version,
        "modelCard": {"modelParameters": {name: value for name, value in parameters.items() if value}},
        "components": [_file(file) for file in model.files],
        "externalReferences": [_source(source) for source in model.sources],
        "properties": _properties(model.format, model.report),
    }
    if model.files:
        component["hashes"] = _hashes(model.files[0].sha256)
    return component


def _tensor(tensor: ModelTensor) -> str:
    return f"{tensor.name}: {tensor.datatype}[{', '.join(tensor.shape)}]"


def _properties(model_format: str, report: ModelReport) -> list[dict[str, str]]:
    known = {
        "format": [model_format],
        "operator-set": [f"{one.domain} {one.version}" for one in report.operator_sets],
        "operator": report.operators,
        "parameters": [str(report.parameters)] if report.parameters else [],
        "size-bytes": [str(report.size_bytes)] if report.size_bytes else [],
    }
    return [
        {"name": f"edgemodel.dev/model/{name}", "value": value}
        for name, values in known.items()
        for value in values
    ]


def _file(file: NamedFile) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"{_MODEL}/{file.name}",
        "name": file.name,
        "hashes": _hashes(file.sha256),
    }


def _source(source: Material) -> dict[str, Any]:
    return {"type": "distribution", "url": source.uri, "hashes": _hashes(source.sha256)}


def _runtime(image: ImageContents) -> dict[str, Any]:
    return {
        "type": "container",
        "bom-ref": _RUNTIME,
        "name": "runtime",
        "purl": image_purl("runtime", image.runtime),
        "hashes": _hashes(image.runtime.removeprefix("sha256:")),
    }


def _of_purl(package: Package) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": _KINDS.get(package.kind, "application"),
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if package.sha256:
        component["hashes"] = _hashes(package.sha256)
    if package.license:
        component["licenses"] = [{"expression": package.license}]
    return component


def _hashes(sha256: str) -> Sequence[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]
