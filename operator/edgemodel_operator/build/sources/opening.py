"""From what was fetched to the files of the model: laid down under their names, archives opened."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path, PurePosixPath

from edgemodel_operator.api.source import Archive
from edgemodel_operator.build.archives import InvalidArchive
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.sources.contents import NoModel, choose_files
from edgemodel_operator.build.sources.download import Allowance, describe
from edgemodel_operator.build.sources.fetched import FetchedSource, SourceFile
from edgemodel_operator.build.sources.names import local_names
from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.build.unpacking import UnpackLimits, unpack

FOLDER = "source"
"""The folder of the model's files below the folder of the build."""


def lay_down(fetched: tuple[SourceFile, ...], want: Want, work: Path) -> FetchedSource:
    """Put the fetched files side by side under the names that they have at their source."""
    named = []
    for file, name in zip(fetched, local_names(tuple(one.name for one in fetched), want), strict=True):
        path = work / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file.path.replace(path)
        named.append(SourceFile(path, name, file.sha256, file.size))
    return FetchedSource(tuple(named), tuple(named))


async def open_archive(
    fetched: SourceFile, archive: Archive, want: Want, work: Path, allowance: Allowance
) -> FetchedSource:
    """Open the fetched archive, choose the files of the model in it, and describe them. Raises BuildError."""
    deadline = time.monotonic() + allowance.total_seconds
    try:
        files = await asyncio.to_thread(
            _open, fetched.path, archive.path, want, work / FOLDER, allowance, deadline
        )
    except InvalidArchive as error:
        raise fail(Reason.SOURCE_INVALID, str(error)) from error
    except NoModel as error:
        raise fail(Reason.SOURCE_INVALID, f"The archive does not say what the model is. {error}") from error
    return FetchedSource((fetched,), files)


def _open(
    archive: Path, path: str, want: Want, folder: Path, allowance: Allowance, deadline: float
) -> tuple[SourceFile, ...]:
    limits = UnpackLimits.of(archive, allowance.max_bytes, deadline)
    chosen = choose_files(unpack(archive, folder, limits), want, path)
    archive.unlink()
    root = PurePosixPath(chosen[0]).parent
    return tuple(describe(folder / name, str(PurePosixPath(name).relative_to(root))) for name in chosen)


async def open_folder(
    fetched: SourceFile, archive: Archive, work: Path, allowance: Allowance
) -> dict[str, Path]:
    """Open the fetched archive and give all files below the folder that `archive` names. Raises BuildError.

    Keys are paths relative to that folder.
    """
    deadline = time.monotonic() + allowance.total_seconds
    limits = UnpackLimits.of(fetched.path, allowance.max_bytes, deadline)
    try:
        names = await asyncio.to_thread(unpack, fetched.path, work / FOLDER, limits, keep_executable=True)
    except InvalidArchive as error:
        raise fail(Reason.SOURCE_INVALID, str(error)) from error
    fetched.path.unlink()
    root = PurePosixPath(archive.path.strip("/"))
    below = [PurePosixPath(name) for name in names if PurePosixPath(name).is_relative_to(root)]
    if not below:
        raise fail(Reason.SOURCE_INVALID, f"The archive holds no file below {archive.path or '.'!r}.")
    return {str(path.relative_to(root)): work / FOLDER / path for path in sorted(below)}
