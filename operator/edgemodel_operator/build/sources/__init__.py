"""Fetching the files of a model: one module for each kind of source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edgemodel_operator.api.source import ConfigMapSource, HttpSource, OciSource, PvcSource, S3Source, Source
from edgemodel_operator.build.archives import LOCAL_ERRORS
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.connection import parse_url, shown
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.entry import entry_files
from edgemodel_operator.build.sources.fetched import FetchedSource, SourceFile
from edgemodel_operator.build.sources.files import fetch_files
from edgemodel_operator.build.sources.http import http_files
from edgemodel_operator.build.sources.oci import oci_files
from edgemodel_operator.build.sources.opening import lay_down, open_archive, open_folder
from edgemodel_operator.build.sources.volume import volume_files
from edgemodel_operator.build.sources.wanted import ARCHIVE_SUFFIXES, Want


async def fetch_source(
    source: Source, want: Want, work: Path, allowance: Allowance, access: SourceAccess
) -> FetchedSource:
    """Fetch the files of the source to the folder `work`, check the SHA-256 that it gives, open its archive.

    Where the spec gives no SHA-256 the result tells it, for the caller to pin. Raises BuildError; then the
    folder may hold parts of files, and goes with the build.
    """
    async with _bounded(source, allowance):
        if source.archive is None:
            return lay_down(await _fetch(source, want, work, allowance, access), want, work)
        (archive,) = await _fetch(source, want.as_archive(), work, allowance, access)
        return await open_archive(archive, source.archive, want, work, allowance)


async def fetch_folder(
    source: Source, work: Path, allowance: Allowance, access: SourceAccess
) -> dict[str, Path]:
    """Fetch the archive of a source to the folder `work`, and give every file in it by its name.

    Raises BuildError, as `fetch_source` does.
    """
    if source.archive is None:
        raise ValueError("the type of the source asks for an archive")
    async with _bounded(source, allowance):
        (archive,) = await _fetch(source, Want(ARCHIVE_SUFFIXES), work, allowance, access)
        return await open_folder(archive, source.archive, work, allowance)


@asynccontextmanager
async def _bounded(source: Source, allowance: Allowance) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(allowance.total_seconds):
            yield
    except TimeoutError as error:
        raise fail(
            Reason.SOURCE_TIMEOUT,
            f"{_shown(source)} was not complete after {allowance.total_seconds:g} seconds.",
        ) from error
    except OSError as error:
        if error.errno not in LOCAL_ERRORS:
            raise
        raise fail(Reason.NO_SPACE, "The disk for temporary files is full.") from error


async def _fetch(
    source: Source, want: Want, work: Path, allowance: Allowance, access: SourceAccess
) -> tuple[SourceFile, ...]:
    match source.chosen:
        case HttpSource() as http:
            async with http_files(http, allowance, access) as fetch:
                return await fetch_files((http, http.weights), want, work, allowance, fetch)
        case S3Source() as s3:
            # What signs takes a third of a second and 24 MB to import: not for the other kinds.
            from edgemodel_operator.build.sources.s3 import s3_files  # noqa: PLC0415

            async with s3_files(s3, allowance, access) as fetch_object:
                return await fetch_files((s3, s3.weights), want, work, allowance, fetch_object)
        case OciSource() as oci:
            async with oci_files(oci, allowance, access) as fetch_layer:
                return await fetch_files((oci, oci.weights), want, work, allowance, fetch_layer)
        case PvcSource() as pvc:
            return await fetch_files((pvc, pvc.weights), want, work, allowance, volume_files(pvc, access))
        case ConfigMapSource() as entry:
            return await fetch_files(
                (entry, entry.weights), want, work, allowance, entry_files(entry, access)
            )


def _shown(source: Source) -> str:
    match source.chosen:
        case HttpSource(url=url):
            return shown(parse_url(url))
        case S3Source(bucket=bucket, key=key):
            return f"The object {key} of the bucket {bucket}"
        case OciSource(reference=reference):
            return reference
        case PvcSource(claim_name=name, path=path):
            return f"{path} of the volume {name}"
        case ConfigMapSource(name=name, key=key):
            return f"The entry {key} of the ConfigMap {name}"
