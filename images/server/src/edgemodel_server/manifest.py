"""The model folder: its manifest, and the proof that its files are the ones the manifest names.

A model folder holds ``manifest.json`` and the files that it lists (format in ``images/CONTRACT.md``); a bare
model file is served as well, without a promise to hold it against. This module reads files and nothing else:
it must not import numpy or a runtime, so that ``--prefetch`` stays small.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemodel_server.errors import Reason, StartError
from edgemodel_server.preprocessing.schema import Preprocessing, parse_preprocessing

SCHEMA = "edgemodel.dev/model/v1"
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
FORMAT_SUFFIXES: Mapping[str, str] = {"ONNX": ".onnx", "TFLite": ".tflite", "OpenVINO": ".xml"}
"""Model format -> how the name of the file ends that the runtime is given."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_LIBRARY = re.compile(r"\.(so(\.\d+)*|dll|dylib)$", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: path relative to the folder, lower-case hex sha256, size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Source:
    """A model to serve, not verified yet: ``main`` is the file that the runtime loads, one of ``files``.

    ``files`` is None for a bare model file, which comes without a manifest. ``golden`` is the golden sample
    that comes with the model, another of ``files``.
    """

    name: str
    version: str
    format: str
    folder: Path
    main: str
    files: tuple[ModelFile, ...] | None
    preprocessing: Preprocessing | None = None
    golden: str | None = None

    @property
    def golden_path(self) -> Path | None:
        """The golden sample in the folder; None where the model comes without one."""
        return None if self.golden is None else self.folder / self.golden

    @property
    def path(self) -> Path:
        """The file that the runtime is given."""
        return self.folder / self.main


def find_folders(root: Path) -> tuple[Path, ...]:
    """Return every folder under ``root`` that may hold a model, sorted; none if ``root`` does not exist."""
    if not root.is_dir():
        return ()
    return tuple(sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")))


def read_source(path: Path, name: str | None = None) -> Source:
    """Read what is served at ``path``, a model folder or a bare model file; verifies no file yet.

    Raises StartError(LoadFailed) if it is neither.
    """
    if path.is_dir():
        return _read_folder(path, name)
    if not path.is_file():
        raise StartError(Reason.LOAD_FAILED, f"{path} does not exist")
    model_format = next((known for known, suffix in FORMAT_SUFFIXES.items() if path.suffix == suffix), None)
    if model_format is None:
        endings = ", ".join(FORMAT_SUFFIXES.values())
        raise StartError(
            Reason.LOAD_FAILED, f"{path} is no model file: its name must end with one of {endings}"
        )
    served_as = name or path.stem
    if not _NAME.fullmatch(served_as):
        raise StartError(Reason.LOAD_FAILED, f"{served_as!r} is no model name: serve the file as NAME=FILE")
    return Source(served_as, "1", model_format, path.parent, path.name, files=None)


def verify_files(source: Source) -> str:
    """Prove that the folder holds exactly the manifest's files: sizes, sha256, and nothing beside them.

    Returns the sha256 (hex) of the file that the runtime loads. Raises StartError(FileDigestMismatch). A
    bare file has nothing to be held against: it is only hashed.
    """
    if source.files is None:
        return _hash_file(source.path)
    for file in source.files:
        path = source.folder / file.path
        if not path.is_file() or not path.resolve().is_relative_to(source.folder.resolve()):
            raise StartError(Reason.FILE_DIGEST_MISMATCH, f"{path} is in the manifest, but not in the folder")
        size = path.stat().st_size
        if size != file.size:
            sentence = f"{path} has {size} bytes, the manifest says {file.size}"
            raise StartError(Reason.FILE_DIGEST_MISMATCH, sentence)
        found = _hash_file(path)
        if found != file.sha256:
            sentence = f"{path} has sha256 {found}, the manifest says {file.sha256}"
            raise StartError(Reason.FILE_DIGEST_MISMATCH, sentence)
    listed = {source.folder / file.path for file in source.files} | {source.folder / MANIFEST_NAME}
    # A runtime may read what lies beside the model (external weights): nothing unvouched for must be there.
    strangers = [path for path in source.folder.rglob("*") if path.is_file() and path not in listed]
    if strangers:
        raise StartError(Reason.FILE_DIGEST_MISMATCH, f"{min(strangers)} is not in the manifest")
    return next(file.sha256 for file in source.files if file.path == source.main)


def _read_folder(folder: Path, name: str | None) -> Source:
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise StartError(Reason.LOAD_FAILED, f"{path} cannot be read: {error.strerror}") from error
    if len(text) > MAX_MANIFEST_BYTES:
        raise StartError(Reason.LOAD_FAILED, f"{path} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        document = json.loads(text)
        source = _parse_manifest(document, folder, name)
    except (ValueError, RecursionError) as error:
        raise StartError(Reason.LOAD_FAILED, f"{path} is no model manifest: {error}") from error
    return source


def _parse_manifest(document: Any, folder: Path, name: str | None) -> Source:
    """Return the source that a manifest describes; raises ValueError with the end of a sentence."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA}")
    for key in ("name", "version"):
        if not isinstance(document.get(key), str) or not _NAME.fullmatch(document[key]):
            raise ValueError(f"{key} must be letters, digits, '.', '_' and '-'")
    suffix = FORMAT_SUFFIXES.get(document["format"]) if isinstance(document.get("format"), str) else None
    if suffix is None:
        raise ValueError(f"format must be one of {', '.join(FORMAT_SUFFIXES)}")
    entries = document.get("files")
    if not isinstance(entries, list) or not entries:
        raise ValueError("files must be a list that is not empty")
    files = tuple(_parse_file(entry) for entry in entries)
    main = next((file for file in files if file.path.endswith(suffix)), None)
    if main is None:
        raise ValueError(f"files has no {suffix} file")
    return Source(
        name=name or document["name"],
        version=document["version"],
        format=document["format"],
        folder=folder,
        main=main.path,
        files=files,
        preprocessing=_parse_preprocessing(document, files) if "preprocessing" in document else None,
        golden=_parse_golden(document["golden"], files) if "golden" in document else None,
    )


def _parse_preprocessing(document: Mapping[str, Any], files: tuple[ModelFile, ...]) -> Preprocessing:
    preprocessing = parse_preprocessing(document["preprocessing"])
    classification = preprocessing.classification
    labels_file = classification.labels_file if classification else None
    if labels_file is not None and labels_file not in {file.path for file in files}:
        raise ValueError(f"preprocessing.classification.labelsFile: {labels_file} is not in files")
    return preprocessing


def _parse_golden(golden: Any, files: tuple[ModelFile, ...]) -> str:
    for file in files:  # listed, so that its sha256 vouches for it, too
        if file.path == golden:
            return file.path
    raise ValueError(f"golden: {golden!r} is not in files")


def _parse_file(entry: Any) -> ModelFile:
    if not isinstance(entry, dict):
        raise ValueError("each of files must be an object")  # noqa: TRY004 - one class for every fault of the file
    path, sha256, size = entry.get("path"), entry.get("sha256"), entry.get("size")
    if not isinstance(path, str) or not _is_inside(path):
        raise ValueError(f"files: {path!r} is no relative path inside the folder")
    if _LIBRARY.search(path):
        raise ValueError(f"files: {path} is a library: models with operations of their own are not served")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"files: the sha256 of {path} must be 64 lower-case hex digits")
    if type(size) is not int or size < 0:
        raise ValueError(f"files: the size of {path} must be a number of bytes")
    return ModelFile(path, sha256, size)


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    return "\0" not in path and all(part not in ("", ".", "..") for part in parts) and path != MANIFEST_NAME


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
