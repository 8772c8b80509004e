"""What a model image looks like: files, labels, annotations. Format: `images/CONTRACT.md`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.api.image import Compression
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.api.names import GROUP
from edgemodel_operator.oci.compression import GZIP, ZSTD, Compressor
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.layer import Entry, File

ASSEMBLER = "edgemodel-graft/1"
"""Raise the number when anything here or in `graft` changes the bytes of an image."""

COMPRESSORS: Mapping[Compression, Compressor] = {Compression.ZSTD: ZSTD, Compression.GZIP: GZIP}

MANIFEST_SCHEMA = "edgemodel.dev/model/v1"
MODEL_ROOT = "models"

ANNOTATION_BUILD_KEY = f"{GROUP}/build-key"
_TITLE = "org.opencontainers.image.title"
_VERSION = "org.opencontainers.image.version"
_BASE_DIGEST = "org.opencontainers.image.base.digest"

STEM = "model"
"""The name of every file of a model, before its suffix: runtimes find weights by the name of the model."""


@dataclass(frozen=True)
class ModelFacts:
    """What an image says about the model that it carries."""

    name: str
    model: ModelSpec
    build_key: str

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names of the files beside the manifest: the model, then its weights where they are apart."""
        return tuple(f"{STEM}{suffix}" for suffix in self.model.format.suffixes)

    @property
    def folder(self) -> str:
        """The folder of the model in the image, without a leading slash."""
        return f"{MODEL_ROOT}/{self.name}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The files in the image, without a leading slash, in the order of `file_names`."""
        return tuple(f"{self.folder}/{name}" for name in self.file_names)


def model_entries(facts: ModelFacts, files: Sequence[Path]) -> tuple[Entry, ...]:
    """Give the entries of the model layer; `files` in the order of the facts' `file_names`."""
    sizes = [file.stat().st_size for file in files]
    return (
        File(f"{facts.folder}/manifest.json", model_manifest(facts, sizes)),
        *(File(path, file) for path, file in zip(facts.paths, files, strict=True)),
    )


def model_manifest(facts: ModelFacts, sizes: Sequence[int]) -> bytes:
    """Give the document by which the server knows the model and verifies its files; sizes in bytes."""
    described = zip(facts.file_names, facts.model.source.digests, sizes, strict=True)
    pictures = facts.model.preprocessing
    return canonical_json(
        {
            "schema": MANIFEST_SCHEMA,
            "name": facts.name,
            "version": facts.model.version,
            "format": facts.model.format.value,
            "files": [{"path": path, "sha256": sha256, "size": size} for path, sha256, size in described],
            **({"preprocessing": pictures.to_raw()} if pictures else {}),
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
        f"{GROUP}/model-sha256": facts.model.source.digests[0],
        ANNOTATION_BUILD_KEY: facts.build_key,
    }
