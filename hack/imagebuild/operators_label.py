"""The label that says which operators an image's runtime has, asked once for each version of a library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgemodel_operator.build.operators import LABEL
from edgemodel_operator.build.origin.packages import Package
from edgemodel_operator.oci.descriptor import canonical_json

from .cache import Cache, key_of
from .operators import operators_of

_ASKED = {
    "ai-edge-litert": "litert",
    "onnxruntime": "onnxruntime",
    "onnxruntime-gpu": "onnxruntime",
    "openvino": "openvino",
}
"""Distributions in images -> what `operators_of` calls the library; variants of one version run the same."""
_HERE = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}


def operators_label(packages: Iterable[Package], cache: Cache) -> dict[str, str]:
    """Return the label for an image of these packages; none where this machine cannot be asked for it.

    That is so when the image's runtime is one that is not known, or of another version than the one here:
    nothing is said rather than something that may be wrong.
    """
    for package in packages:
        library = _ASKED.get(package.name)
        if library and package.kind == "pypi" and package.version == _version_here(library):
            return {LABEL: _ask(library, package.version, cache)}
    return {}


def _ask(library: str, of_version: str, cache: Cache) -> str:
    key = key_of(library, of_version, _asker())
    if (known := cache.tree("operators", key)) is None:
        with cache.new_tree("operators", key) as tree:
            (tree / "operators.json").write_bytes(canonical_json(operators_of(library)))
        known = cache.folder("operators", key)
    return (known / "operators.json").read_text()


def _version_here(library: str) -> str:
    try:
        return version(_HERE[library])
    except PackageNotFoundError:
        return ""


def _asker() -> str:
    """Hash the modules that ask, so that a change of theirs asks again."""
    files = sorted(Path(__file__).with_name("operators").glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
