"""Fetching the files of a model: one module for each kind of source."""

from __future__ import annotations

from pathlib import Path

from edgemodel_operator.api.source import HttpSource, OciSource
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.sources.download import Allowance, FetchedFile
from edgemodel_operator.build.sources.http import fetch_http
from edgemodel_operator.build.sources.oci import fetch_oci


async def fetch_source(request: BuildRequest, work: Path, allowance: Allowance) -> tuple[FetchedFile, ...]:
    """Fetch the model to the folder `work`, and its weights where they are apart; their SHA-256 is checked.

    Raises BuildError.
    """
    source = request.model.source
    if source.http is not None:
        return await _fetch_http(source.http, work, allowance)
    if source.oci is not None:
        return await _fetch_oci(request, source.oci, work, allowance)
    raise ValueError("a source without http and oci cannot be constructed")


async def _fetch_http(source: HttpSource, work: Path, allowance: Allowance) -> tuple[FetchedFile, ...]:
    insecure = source.insecure
    model = await fetch_http(source, work / "model", allowance, insecure=insecure)
    if source.weights is None:
        return (model,)
    return model, await fetch_http(source.weights, work / "weights", allowance, insecure=insecure)


async def _fetch_oci(
    request: BuildRequest, source: OciSource, work: Path, allowance: Allowance
) -> tuple[FetchedFile, ...]:
    model_suffix, *others = request.model.format.suffixes
    artifact = source.reference
    model = await fetch_oci(request, artifact, source, model_suffix, work / "model", allowance)
    if source.weights is None:
        return (model,)
    return model, await fetch_oci(request, artifact, source.weights, others[0], work / "weights", allowance)
