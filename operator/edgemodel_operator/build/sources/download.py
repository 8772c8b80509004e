"""What all sources share: the allowance of a download, and files that are hashed while they are written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.oci.transport import RetryPolicy

OnBytes = Callable[[int, int | None], None]
"""Told how many bytes are done, and of how many (None while unknown)."""


@dataclass(frozen=True)
class Allowance:
    """What one source may cost; times in seconds."""

    policy: AddressPolicy
    max_bytes: int
    total_seconds: float
    idle_seconds: float = 30.0
    """How long a server may be silent, or slower than `slowest_rate`."""
    on_bytes: OnBytes = lambda done, total: None
    slowest_rate: int = 1024
    """Bytes per second that a server must send on average."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Sink:
    """A file that is being received: hashed, counted and held against the allowance while it is written."""

    def __init__(self, path: Path, allowance: Allowance) -> None:
        self._path, self._allowance = path, allowance
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self.size = 0
        self.total: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def begin(self, total: int | None) -> None:
        """Start with an empty file that is to get `total` bytes; forget what was there. Raises BuildError."""
        check_size(total, self._allowance.max_bytes)
        self._close()
        self._file = self._path.open("wb")
        self._digest, self.size, self.total = hashlib.sha256(), 0, total

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; raises BuildError(SourceTooLarge), or OSError of the local disk."""
        if self._file is None:
            raise ValueError("a sink takes bytes after it has begun")
        check_size(self.size + len(chunk), self._allowance.max_bytes)
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)
        self._allowance.on_bytes(self.size, self.total)

    def finish(self, name: str) -> SourceFile:
        """Close the file and describe it."""
        self._close()
        return SourceFile(self._path, name, self._digest.hexdigest(), self.size)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


async def save(
    chunks: AsyncIterable[bytes], destination: Path, total: int | None, allowance: Allowance
) -> SourceFile:
    """Write the chunks to the file while hashing them; raises BuildError(SourceTooLarge) beyond the cap."""
    with Sink(destination, allowance) as sink:
        sink.begin(total)
        async for chunk in chunks:
            sink.write(chunk)
        return sink.finish(destination.name)


def check_size(size: int | None, limit: int) -> None:
    """Raise BuildError(SourceTooLarge) when the known size is beyond the limit."""
    if size is not None and size > limit:
        raise too_large(size, limit)


def too_large(size: int, limit: int) -> BuildError:
    """Make the error for a file of at least `size` bytes."""
    return fail(
        Reason.SOURCE_TOO_LARGE,
        f"The model file has {size} bytes or more; the operator's configuration allows {limit}.",
    )


def check_digest(file: SourceFile, expected: str | None) -> SourceFile:
    """Give the file back if it has the SHA-256 that is asked for, if any; else raise SourceDigestMismatch."""
    if expected and file.sha256 != expected:
        raise fail(
            Reason.SOURCE_DIGEST_MISMATCH,
            f"The file of {file.size} bytes has sha256 {file.sha256}, but the spec says {expected}: "
            "either it is not the file that was meant, or `sha256` must be changed.",
        )
    return file


def describe(path: Path, name: str = "") -> SourceFile:
    """Hash a local file; its name is that of the path where none is given. Blocking."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(path, name or path.name, digest, path.stat().st_size)


class Pace:
    """Notices a sender that keeps a connection alive with a few bytes now and then."""

    def __init__(self, window_seconds: float, slowest_rate: int, now: float | None = None) -> None:
        self._window, self._rate = window_seconds, slowest_rate
        self._began = time.monotonic() if now is None else now
        self._bytes = 0

    def keeps(self, count: int, now: float | None = None) -> bool:
        """Tell, after `count` more bytes, whether the window that has passed had enough of them."""
        now = time.monotonic() if now is None else now
        self._bytes += count
        if now - self._began < self._window:
            return True
        enough = self._bytes >= self._rate * (now - self._began)
        self._began, self._bytes = now, 0
        return enough
