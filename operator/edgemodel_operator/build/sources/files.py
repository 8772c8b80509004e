"""The main file of a source and its weights, one after the other, whatever kind of source it is."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from edgemodel_operator.api.source import Hashed
from edgemodel_operator.build.sources.download import Allowance, check_digest
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.sources.wanted import Want

AskedFile = TypeVar("AskedFile", bound=Hashed)
Asked_contra = TypeVar("Asked_contra", bound=Hashed, contravariant=True)


class Fetch(Protocol[Asked_contra]):
    """Fetches one file of a source."""

    def __call__(
        self, file: Asked_contra, endings: tuple[str, ...], destination: Path, allowance: Allowance, /
    ) -> Awaitable[SourceFile]:
        """Fetch the file to `destination`; its name is how the source calls it, folders included.

        `endings` are those of the names that fit, where the file has no name in the spec. Raises BuildError.
        """


async def fetch_files(
    asked: tuple[AskedFile, AskedFile | None],
    want: Want,
    work: Path,
    allowance: Allowance,
    fetch: Fetch[AskedFile],
) -> tuple[SourceFile, ...]:
    """Fetch the main file and, where it is asked for, the weights; check their SHA-256. Raises BuildError."""
    main, weights = asked
    model = check_digest(await fetch(main, want.main, work / "fetched-model", allowance), main.sha256)
    if weights is None:
        return (model,)

    def count_on(done: int, total: int | None) -> None:
        allowance.on_bytes(model.size + done, None if total is None else model.size + total)

    counted = replace(allowance, on_bytes=count_on)
    fetched = await fetch(weights, want.weights, work / "fetched-weights", counted)
    return model, check_digest(fetched, weights.sha256)
