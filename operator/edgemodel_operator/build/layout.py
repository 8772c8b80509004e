"""What a model image looks like: files, layers, labels, annotations. Format: `images/CONTRACT.md`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.image import Compression
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.api.names import GROUP
from edgemodel_operator.build.parts import MANIFEST_NAME, ModelParts
from edgemodel_operator.core.annotations import BUILD_KEY, MODEL_REPORT, write_report
from edgemodel_operator.oci.compression import GZIP, ZSTD, Compressor
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.layer import Entry, File

ASSEMBLER = "edgemodel-graft/3"
"""Raise the number when the bytes of images change: by this module, `graft`, `split`, `shard`, `inspect`,
or by another release of what they call. tests/adapters/test_build_determinism.py sees it."""

COMPRESSORS: Mapping[Compression, Compressor] = {Compression.ZSTD: ZSTD, Compression.GZIP: GZIP}

MANIFEST_SCHEMA = "edgemodel.dev/model/v1"
MODEL_ROOT = "models"

_TITLE = "org.opencontainers.image.title"
_VERSION = "org.opencontainers.image.version"
_BASE_DIGEST = "org.opencontainers.image.base.digest"


@dataclass(frozen=True)
class ModelFacts:
    """What an image says about the model that it carries."""

    name: str
    """The name under which it is served: its folder in the image."""
    model: ModelSpec
    """Its format and version, and what it makes of pictures. Where it comes from is not looked at."""
    source_sha256: str
    """The SHA-256 (hex) of its main file at the source, before anything was converted or moved."""
    build_key: str
    """The key of the build (64 hex digits)."""

    @property
    def folder(self) -> str:
        """The folder of the model in the image, without a leading slash."""
        return f"{MODEL_ROOT}/{self.name}"


def layer_entries(facts: ModelFacts, parts: ModelParts) -> tuple[tuple[Entry, ...], ...]:
    """Give the entries of each layer of the model, bottom to top; the manifest is in the top one."""
    layers = [
        tuple(File(f"{facts.folder}/{piece.name}", piece.content) for piece in layer)
        for layer in parts.layers
    ]
    manifest = File(f"{facts.folder}/{MANIFEST_NAME}", model_manifest(facts, parts))
    return (*layers[:-1], (manifest, *layers[-1]))


def model_manifest(facts: ModelFacts, parts: ModelParts) -> bytes:
    """Give the document by which the server knows the model and verifies its files."""
    pictures = facts.model.preprocessing
    changed = parts.main.sha256 != facts.source_sha256
    return canonical_json(
        {
            "schema": MANIFEST_SCHEMA,
            "name": facts.name,
            "version": facts.model.version,
            "format": facts.model.format.value,
            "files": [
                {"path": piece.name, "sha256": piece.sha256, "size": piece.size} for piece in parts.pieces
            ],
            **({"preprocessing": pictures.to_raw()} if pictures else {}),
            **({"source": {"sha256": facts.source_sha256}} if changed else {}),
        }
    )


def make_annotations(facts: ModelFacts, base_digest: str) -> Mapping[str, str]:
    """Give the annotations of an index or manifest, and the labels of a configuration.

    They hold no name of a registry and no time: the same inputs give the same bytes everywhere.
    """
    return {
        _TITLE: facts.name,
        _VERSION: facts.model.version,
        _BASE_DIGEST: base_digest,
        f"{GROUP}/model-format": facts.model.format.value,
        f"{GROUP}/model-sha256": facts.source_sha256,
        BUILD_KEY: facts.build_key,
    }


def index_annotations(facts: ModelFacts, base_digest: str, report: ModelReport) -> Mapping[str, str]:
    """Give the annotations of the index: those of its images, and what is inside the model."""
    return {**make_annotations(facts, base_digest), MODEL_REPORT: write_report(report)}
