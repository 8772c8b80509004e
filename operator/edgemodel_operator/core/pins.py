"""Pins: the SHA-256 of what a source gave first, where the spec names none.

A pin belongs to one source and one version of the model. As long as neither changes, every build, on every
try and for every runtime variant, takes the same bytes or fails.
"""

from __future__ import annotations

import hashlib
import json

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.model import ModelSpec


def source_key(model: ModelSpec) -> str:
    """Give the hash (16 hex digits) of what a pin belongs to: the source and the name of the version."""
    document = {"source": model.source.to_raw(), "version": model.version}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def known_digests(model: ModelSpec, report: ModelReport | None) -> tuple[str, ...]:
    """Give the SHA-256 of each file that is to be fetched; empty where it is not known yet.

    What the spec says counts before what was seen.
    """
    said = model.source.digests
    if report is None or report.source_key != source_key(model) or len(report.files) != len(said):
        return said
    return tuple(given or file.sha256 for given, file in zip(said, report.files, strict=True))


def is_pinned(digests: tuple[str, ...]) -> bool:
    """Tell whether every file is known by its content."""
    return all(digests)
