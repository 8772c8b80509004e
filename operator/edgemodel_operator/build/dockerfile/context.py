"""The build context: the files that a builder gets, the same bytes for the same files.

Names are sorted, times and owners are fixed, and of modes only the executable bit counts, so that what
`COPY` makes of them does not depend on the machine that opened the archive.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from docker.utils.build import Pattern

from edgemodel_operator.build.dockerfile.instructions import (
    MAX_BYTES,
    Instruction,
    InvalidDockerfile,
    check_dockerfile,
    decode_dockerfile,
    parse_dockerfile,
    with_labels,
)
from edgemodel_operator.oci.layer import File, InvalidEntry, arrange
from edgemodel_operator.oci.splice import Content

IGNORE_FILE = ".dockerignore"
LABELLED = ".edgemodel.Dockerfile"
"""Where the Dockerfile with our labels lies in the context; the engine takes it out before any COPY."""

_SHOWN_NAMES = 10


@dataclass(frozen=True)
class BuildContext:
    """The checked Dockerfile, and the files that its instructions may copy."""

    dockerfile: str
    """Its text."""
    instructions: tuple[Instruction, ...]
    files: Mapping[str, Path]
    """Name in the context → where the file lies; sorted, without what `.dockerignore` names."""


def open_context(files: Mapping[str, Path], dockerfile: str) -> BuildContext:
    """Check the Dockerfile and choose the files; `files` are those of the opened archive, by their names.

    Blocking. Raises InvalidDockerfile, OSError.
    """
    if dockerfile not in files:
        shown = ", ".join(sorted(files)[:_SHOWN_NAMES]) or "nothing"
        raise InvalidDockerfile(
            f"The context holds no {dockerfile!r}: name the file in `dockerfile.path`. It holds {shown}."
        )
    try:
        arrange(File(name, path) for name, path in files.items())
    except InvalidEntry as error:
        raise InvalidDockerfile(f"The context cannot be sent to a builder: {error}") from error
    text = decode_dockerfile(_read_bounded(files[dockerfile]))
    instructions = parse_dockerfile(text)
    check_dockerfile(instructions)
    ignored = _read_bounded(files[IGNORE_FILE]).decode(errors="replace") if IGNORE_FILE in files else ""
    kept = keep_files(sorted(files), ignored)
    return BuildContext(text, instructions, {name: files[name] for name in kept})


def keep_files(names: Sequence[str], ignore_file: str) -> tuple[str, ...]:
    """Leave out the names that a `.dockerignore` excludes, and the file itself.

    Format: the last pattern that matches a file or a folder above it decides; `!` brings files back.
    Raises InvalidDockerfile.
    """
    lines = (line.strip() for line in ignore_file.lstrip("\ufeff").splitlines())
    patterns = [Pattern(line) for line in lines if line and not line.startswith("#")]
    try:
        kept = [name for name in names if not _is_ignored(name, patterns)]
    except re.error as error:
        raise InvalidDockerfile(f"The file {IGNORE_FILE} has a pattern that is none: {error}.") from error
    return tuple(name for name in kept if name != IGNORE_FILE)


def _is_ignored(name: str, patterns: Sequence[Pattern]) -> bool:
    parts = name.split("/")
    paths = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    ignored = False
    for pattern in patterns:
        if pattern.dirs and any(pattern.match(path) for path in paths):
            ignored = not pattern.exclusion
    return ignored


def write_context(context: BuildContext, labels: Mapping[str, str], out: BinaryIO) -> None:
    """Write the context as the tar that the Docker Engine takes, its Dockerfile labelled. Blocking."""
    labelled = with_labels(context.dockerfile, labels).encode()
    # The engine takes a Dockerfile that is ignored out of the context before it copies anything.
    own = {LABELLED: labelled, IGNORE_FILE: f"{LABELLED}\n{IGNORE_FILE}\n".encode()}
    entries = arrange([File(name, path) for name, path in context.files.items() if name not in own])
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for name, content in own.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
        for entry in entries:
            _add(archive, entry.path, entry.source if isinstance(entry, File) else None)


def lay_out_context(context: BuildContext, folder: Path) -> None:
    """Write the files of the context into a new folder, for a builder that reads folders. Blocking."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)  # whatever the mode of the folder above hands down
    for entry in arrange([File(name, path) for name, path in context.files.items()]):
        target = folder / entry.path
        if isinstance(entry, File):
            shutil.copyfile(context.files[entry.path], target)
            target.chmod(_mode(context.files[entry.path]))
        else:
            target.mkdir()
            target.chmod(0o755)


def _add(archive: tarfile.TarFile, name: str, source: Content | None) -> None:
    header = tarfile.TarInfo(name)
    if not isinstance(source, Path):
        header.type, header.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(header)
        return
    header.mode, header.size = _mode(source), source.stat().st_size
    with source.open("rb") as content:
        archive.addfile(header, content)


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
