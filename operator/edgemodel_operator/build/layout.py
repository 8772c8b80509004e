"""What a model image looks like: files, labels, annotations. Format: `images/CONTRACT.md`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.api.names import GROUP
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.layer import Entry, File

ASSEMBLER = "edgemodel-graft/1"
"""Raise the number when anything here or in `graft` changes the bytes of an image."""

MANIFEST_SCHEMA = "edgemodel.dev/model/v1"
MODEL_ROOT = "models"

ANNOTATION_BUILD_KEY = f"{GROUP}/build-key"
_TITLE = "org.opencontainers.image.title"
_VERSION = "org.opencontainers.image.version"
_BASE_DIGEST = "org.opencontainers.image.base.digest"

_FILE_NAMES = {"ONNX": "model.onnx"}


@dataclass(frozen=True)
class ModelFacts:
    """What an image says about the model that it carries."""

    name: str
    version: str
    format: str
    sha256: str
    build_key: str

    @property
    def file_name(self) -> str:
        """The name of the model file beside its manifest."""
        return _FILE_NAMES[self.format]

    @property
    def folder(self) -> str:
        """The folder of the model in the image, without a leading slash."""
        return f"{MODEL_ROOT}/{self.name}"

    @property
    def model_path(self) -> str:
        """The model file in the image, without a leading slash."""
        return f"{self.folder}/{self.file_name}"


def model_entries(facts: ModelFacts, model: Path, size: int) -> tuple[Entry, ...]:
    """Give the entries of the model layer; `size` (bytes) is that of the file `model`."""
    return (
        File(f"{facts.folder}/manifest.json", model_manifest(facts, size)),
        File(facts.model_path, model),
    )


def model_manifest(facts: ModelFacts, size: int) -> bytes:
    """Give the document by which the server knows the model and verifies its file."""
    return canonical_json(
        {
            "schema": MANIFEST_SCHEMA,
            "name": facts.name,
            "version": facts.version,
            "format": facts.format,
            "files": [{"path": facts.file_name, "sha256": facts.sha256, "size": size}],
        }
    )


def make_annotations(facts: ModelFacts, base_digest: str) -> Mapping[str, str]:
    """Give the annotations of an index or manifest, and the labels of a configuration.

    They hold no name of a registry and no time: the same inputs give the same bytes everywhere.
    """
    return {
        _TITLE: facts.name,
        _VERSION: facts.version,
        _BASE_DIGEST: base_digest,
        f"{GROUP}/model-format": facts.format,
        f"{GROUP}/model-sha256": facts.sha256,
        ANNOTATION_BUILD_KEY: facts.build_key,
    }
