"""Model files in a volume that is mounted into this process' container."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from pathlib import Path

from edgemodel_operator.api.source import PvcFile, PvcSource
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance, Sink
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.sources.files import Fetch

_CHUNK_BYTES = 1024 * 1024
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def volume_files(source: PvcSource, access: SourceAccess) -> Fetch[PvcFile]:
    """Give what fetches the files of the volume; raises BuildError.

    Files are copied: what is hashed must be what is built, whoever writes to the volume meanwhile.
    """
    if access.volume is None:
        raise fail(
            Reason.SOURCE_INVALID,
            f"The volume {source.claim_name} is not mounted here: a source `pvc` is read by a Job.",
        )
    root = access.volume

    async def fetch(
        file: PvcFile, endings: tuple[str, ...], destination: Path, allowance: Allowance
    ) -> SourceFile:
        deadline = time.monotonic() + allowance.total_seconds
        return await asyncio.to_thread(_copy, root, file.path, destination, allowance, deadline)

    return fetch


def _copy(root: Path, path: str, destination: Path, allowance: Allowance, deadline: float) -> SourceFile:
    with os.fdopen(open_beneath(root, path), "rb") as file, Sink(destination, allowance) as sink:
        before = os.fstat(file.fileno())
        sink.begin(before.st_size)
        while chunk := file.read(_CHUNK_BYTES):
            sink.write(chunk)
            if time.monotonic() > deadline:
                raise fail(
                    Reason.SOURCE_TIMEOUT,
                    f"Reading {path} took more than {allowance.total_seconds:g} seconds.",
                )
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise fail(Reason.SOURCE_UNAVAILABLE, f"{path} was written to while it was read.")
        return sink.finish(path)


def open_beneath(root: Path, path: str) -> int:
    """Open a regular file below `root` without following any link, and give its descriptor.

    Each part of the path is opened in the folder that was opened before it, so that links which somebody puts
    there meanwhile lead nowhere either. Raises BuildError(SourceNotFound, SourceInvalid, SourceDenied).
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    *parents, name = path.split("/")
    try:
        for part in parents:
            inner = _open(part, os.O_DIRECTORY, folder, path)
            os.close(folder)
            folder = inner
        descriptor = _open(name, 0, folder, path)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise fail(Reason.SOURCE_INVALID, f"{path} in the volume is no file, but a folder or device.")
    return descriptor


def _open(part: str, flags: int, folder: int, path: str) -> int:
    if part in {"", ".", ".."}:
        raise fail(Reason.SOURCE_INVALID, f"{path} is no plain path: leave out `..` and a leading slash.")
    try:
        return os.open(part, _FLAGS | flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise fail(Reason.SOURCE_NOT_FOUND, f"{path} does not exist in the volume.") from error
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            raise fail(
                Reason.SOURCE_INVALID,
                f"{path} leads through a link, or through something that is no folder, at {part!r}: name the "
                "file itself.",
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise fail(
                Reason.SOURCE_DENIED, f"{path} may not be read: give it to group 65532, or to everybody."
            ) from error
        raise
