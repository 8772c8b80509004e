"""Fetching the model file: one module for each kind of source."""

from __future__ import annotations

from pathlib import Path

from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.sources.download import Allowance, FetchedFile
from edgemodel_operator.build.sources.http import fetch_http
from edgemodel_operator.build.sources.oci import fetch_oci


async def fetch_source(
    request: BuildRequest, work: Path, destination: Path, allowance: Allowance
) -> FetchedFile:
    """Fetch the source's model file to `destination`; its SHA-256 is checked. Raises BuildError."""
    if request.source.http is not None:
        return await fetch_http(request.source.http, destination, allowance)
    if request.source.oci is not None:
        return await fetch_oci(request, request.source.oci, work, destination, allowance)
    raise ValueError("a source without http and oci cannot be constructed")
