"""What all sources share: the allowance of a download, and writing a stream to a file within it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, Reason, fail

OnBytes = Callable[[int, int | None], None]
"""Told how many bytes are done, and of how many (None while unknown)."""


@dataclass(frozen=True)
class Allowance:
    """What one download may do; times in seconds."""

    policy: AddressPolicy
    max_bytes: int
    total_seconds: float
    idle_seconds: float = 30.0
    on_bytes: OnBytes = lambda done, total: None


@dataclass(frozen=True)
class FetchedFile:
    """A file whose SHA-256 (hex) was checked; size in bytes."""

    path: Path
    sha256: str
    size: int


async def save(
    chunks: AsyncIterable[bytes], destination: Path, total: int | None, allowance: Allowance
) -> FetchedFile:
    """Write the chunks to the file while hashing them; raises BuildError(SourceTooLarge) beyond the cap."""
    digest, size = hashlib.sha256(), 0
    check_size(total, allowance.max_bytes)
    with destination.open("wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            check_size(size, allowance.max_bytes)
            digest.update(chunk)
            file.write(chunk)
            allowance.on_bytes(size, total)
    return FetchedFile(destination, digest.hexdigest(), size)


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


def check_digest(file: FetchedFile, expected: str | None) -> FetchedFile:
    """Give the file back if it has the SHA-256 that is asked for, if any; else raise SourceDigestMismatch."""
    if expected and file.sha256 != expected:
        raise fail(
            Reason.SOURCE_DIGEST_MISMATCH,
            f"The file of {file.size} bytes has sha256 {file.sha256}, but the spec says {expected}: "
            "either it is not the file that was meant, or `sha256` must be changed.",
        )
    return file


def describe(path: Path) -> FetchedFile:
    """Hash a local file. Blocking."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FetchedFile(path, digest, path.stat().st_size)
