"""A folder of unpacked files together with the packages that they came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.origin.packages import Package, packages_label, parse_packages

_FILES, _PACKAGES = "files", "packages.json"


@dataclass(frozen=True)
class Packaged:
    """Files, and what they are said to be."""

    root: Path
    packages: tuple[Package, ...]


def files_folder(tree: Path) -> Path:
    """Make the folder of a new tree in the cache that takes the files."""
    folder = tree / _FILES
    folder.mkdir()
    return folder


def write_packages(tree: Path, packages: Iterable[Package]) -> None:
    """Note beside the files of a new tree what they are."""
    (tree / _PACKAGES).write_text(packages_label(packages))


def read_packaged(tree: Path) -> Packaged:
    """Read a finished tree."""
    return Packaged(tree / _FILES, parse_packages((tree / _PACKAGES).read_text()))
