"""What the index of a model image says of itself, for whoever finds it again; its signature covers it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import ValidationError

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.names import GROUP

BUILD_KEY = f"{GROUP}/build-key"
"""The hash of everything that decided the bytes of the image (64 hex digits)."""
MODEL_REPORT = f"{GROUP}/model-report"
"""A ModelReport as canonical JSON: what goes in and out, and what the model is made of."""


def write_report(report: ModelReport) -> str:
    """Give the annotation's value. Where the files came from is no part of the image: it stays out."""
    raw = report.model_copy(update={"source_key": "", "files": ()}).to_raw()
    said = {name: value for name, value in raw.items() if value not in ("", [], 0)}
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def read_report(annotations: Mapping[str, str]) -> ModelReport | None:
    """Read the report that an index carries; None where it carries none that can be read."""
    try:
        return ModelReport.model_validate_json(annotations.get(MODEL_REPORT, ""))
    except ValidationError:
        return None
