"""Files of Kubernetes objects, read as `kubectl apply -f` reads them: checked, with every mistake named."""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from edgemodel_operator.api.acceleratorclass import AcceleratorClass, AcceleratorClassSpec
from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.edgemodel import EdgeModel, EdgeModelSpec
from edgemodel_operator.api.names import API_VERSION
from edgemodel_operator.api.trustpolicy import TrustPolicy, TrustPolicySpec

Raw = Mapping[str, Any]
_Kind = TypeVar("_Kind", bound=Schema)

_MODEL_NAME = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?")
_CLASS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class InvalidDocuments(Exception):  # noqa: N818 - reads as the fact it states
    """The files cannot be used; the message says where and what to write instead."""


@dataclass(frozen=True)
class Documents:
    """What the files hold, as far as a build or a verification needs it."""

    models: Mapping[str, EdgeModelSpec] = field(default_factory=dict)
    """By name."""
    classes: Mapping[str, AcceleratorClassSpec] = field(default_factory=dict)
    """By name."""
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    """The data of each Secret, by its name."""
    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """The entries of each ConfigMap, by its name."""
    policies: Mapping[str, TrustPolicySpec] = field(default_factory=dict)
    """By name."""

    def only_model(self) -> tuple[str, EdgeModelSpec]:
        """Give the one EdgeModel, with its name; raises InvalidDocuments."""
        if len(self.models) != 1:
            found = ", ".join(sorted(self.models)) or "none"
            raise InvalidDocuments(f"the files must hold exactly one EdgeModel; they hold: {found}")
        return next(iter(self.models.items()))


def read_documents(paths: Sequence[Path]) -> Documents:
    """Read all documents of the files (`-`: standard input). Raises InvalidDocuments."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in _READERS}
    for path in paths:
        for document in _load(path):
            kind = _kind(path, document)
            if kind not in found:
                continue
            name = _name(path, kind, document)
            if name in found[kind]:
                raise InvalidDocuments(f'{path}: {kind} "{name}" is there twice')
            found[kind][name] = _READERS[kind](name, document)
    return Documents(*(found[kind] for kind in _READERS))


def _load(path: Path) -> Iterator[Raw]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        for number, document in enumerate(yaml.safe_load_all(text), start=1):
            if document is None:
                continue
            if not isinstance(document, dict):
                raise InvalidDocuments(f"{path}: document {number} is not a mapping")
            yield document
    except OSError as error:
        raise InvalidDocuments(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidDocuments(f"{path} is not YAML: {error}") from error


def _kind(path: Path, document: Raw) -> str:
    version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        raise InvalidDocuments(f"{path}: a document lacks `apiVersion` or `kind`")
    ours = kind in {"EdgeModel", "AcceleratorClass", "TrustPolicy"}
    if ours and version != API_VERSION:
        raise InvalidDocuments(f"{path}: {kind} needs `apiVersion: {API_VERSION}`, not {version}")
    return kind


def _name(path: Path, kind: str, document: Raw) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidDocuments(f"{path}: a document of kind {kind} lacks `metadata.name`")
    return name


def _read_model(name: str, document: Raw) -> EdgeModelSpec:
    if not _MODEL_NAME.fullmatch(name):
        rule = "at most 52 of a-z, 0-9 and `-`, a letter first"
        raise _invalid("EdgeModel", name, [f"metadata.name: it becomes that of a Service: {rule}"])
    return _validate(EdgeModel, name, document).spec


def _read_class(name: str, document: Raw) -> AcceleratorClassSpec:
    if not _CLASS_NAME.fullmatch(name):
        raise _invalid("AcceleratorClass", name, ["metadata.name: only a-z, 0-9, `-` and `.`"])
    return _validate(AcceleratorClass, name, document).spec


def _read_policy(name: str, document: Raw) -> TrustPolicySpec:
    return _validate(TrustPolicy, name, document).spec


def _read_secret(name: str, document: Raw) -> Mapping[str, bytes]:
    return {**_decoded("Secret", name, document, "data"), **_plain(document, "stringData")}


def _read_config_map(name: str, document: Raw) -> Mapping[str, bytes]:
    return {**_decoded("ConfigMap", name, document, "binaryData"), **_plain(document, "data")}


_READERS = {
    "EdgeModel": _read_model,
    "AcceleratorClass": _read_class,
    "Secret": _read_secret,
    "ConfigMap": _read_config_map,
    "TrustPolicy": _read_policy,
}
"""In the order of the fields of `Documents`."""


def _plain(document: Raw, part: str) -> dict[str, bytes]:
    return {str(key): str(value).encode() for key, value in (document.get(part) or {}).items()}


def _decoded(kind: str, name: str, document: Raw, part: str) -> dict[str, bytes]:
    entries = document.get(part) or {}
    try:
        return {
            str(key): base64.b64decode("".join(str(value).split()), validate=True)
            for key, value in entries.items()
        }
    except (binascii.Error, ValueError) as error:
        raise _invalid(kind, name, [f"{part}: a value is not base64"]) from error


def _validate(kind: type[_Kind], name: str, document: Raw) -> _Kind:
    known = {key: value for key, value in document.items() if key in {"spec"}}
    try:
        return kind.model_validate(known)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        # Of a list whose items are wrong it is also said that it is too short: that helps nobody.
        places = [problem["loc"] for problem in problems]
        said = [
            _problem(problem)
            for problem in problems
            if problem["type"] != "too_short" or sum(_is_in(place, problem["loc"]) for place in places) == 1
        ]
        raise _invalid(kind.__name__, name, said) from None


def _is_in(place: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    return place[: len(other)] == other


def _problem(problem: Mapping[str, Any]) -> str:
    where = ""
    for part in problem["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    said = {"missing": "required", "extra_forbidden": "unknown field"}.get(problem["type"])
    return f"{where.lstrip('.')}: {said or str(problem['msg']).removeprefix('Value error, ')}"


def _invalid(kind: str, name: str, problems: Sequence[str]) -> InvalidDocuments:
    return InvalidDocuments(
        "\n".join([f'the {kind} "{name}" is invalid:', *(f"* {one}" for one in problems)])
    )
