"""Model files in OCI registries: a layer of an artifact, or a file inside the layers of an image.

A layer is one file where it says so: by the annotation `org.opencontainers.image.title` as ORAS writes it, or
`org.cncf.model.filepath` of the ModelPack specification on a layer that is no tar. Everything else that is a
tar is searched from the top layer down, as a container would see it: images, the layers of a KitOps ModelKit
(`application/vnd.kitops.modelkit.model.v1.tar+gzip`) and of a ModelPack (`…model.weight.v1.tar`), and folders
that ORAS packed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from typing_extensions import override

from edgemodel_operator.api.source import OciFile, OciSource
from edgemodel_operator.build.addresses import AddressPolicy, ForbiddenAddress, guarded_session
from edgemodel_operator.build.archives import ArchiveLimits, InvalidArchive, extract_file
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance, Pace, check_size, describe, save
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.sources.files import Fetch
from edgemodel_operator.build.sources.wanted import fits
from edgemodel_operator.oci import errors
from edgemodel_operator.oci.descriptor import INDEX_TYPES, Descriptor, InvalidDescriptor, Platform
from edgemodel_operator.oci.image import InvalidImage, parse_index, parse_manifest
from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient

TITLE = "org.opencontainers.image.title"
FILE_PATHS = ("org.cncf.model.filepath", "org.cnai.model.filepath")
"""How ModelPack names the file of a layer, now and before the specification moved."""
UNPACK = "io.deis.oras.content.unpack"
"""Set to `true` by ORAS where a titled layer is a folder in a tar."""
EXPANSION = 4
"""A layer may unpack to this many times the size cap of a model file, and so many bytes of layers are
fetched in order to search them."""

_ANYWHERE = AddressPolicy.parse(allowed=("0.0.0.0/0", "::/0"))
_PREFERRED = Platform("linux", "amd64")
_TAR = re.compile(r"[./]tar([.+]|$)")
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_NO_MODEL = re.compile(r"\.(dataset|code|docs?)\.v1\.")
"""Layers of ModelKits and ModelPacks that hold something else than a model."""


@dataclass(frozen=True)
class _Wanted:
    """What is looked for: the given path, or any name with one of the endings."""

    path: str
    endings: tuple[str, ...]

    def __call__(self, path: str) -> bool:
        return path == self.path if self.path else fits(path, self.endings)

    @override
    def __str__(self) -> str:
        return f"no file {self.path!r}" if self.path else f"no {' or '.join(self.endings)} file"


class _View:
    """What the layers above leave to be seen of those below.

    Format: OCI image specification, layer.md, "Whiteouts": `.wh.NAME` takes NAME away, `.wh..wh..opq`
    everything in its folder, both from lower layers alone.
    """

    def __init__(self, wanted: _Wanted) -> None:
        self._wanted = wanted
        self._gone: set[str] = set()
        self._taken_away: set[str] = set()
        self.links: set[str] = set()
        """What is a link in a layer, or a device: it hides what has its name below."""
        self.found: list[str] = []

    def __call__(self, path: str) -> bool:
        """Tell whether a regular file of the layer is wanted and seen."""
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            self._taken_away.add(folder)
        elif name.startswith(_WHITEOUT):
            self._taken_away.add(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/"))
        else:
            return self._wanted(path) and not self._is_hidden(path)
        return False

    def pass_over(self, path: str) -> None:
        """Take notice of something in the layer that is no regular file."""
        self._taken_away.add(path)
        if not self._is_hidden(path):
            self.links.add(path)

    def descend(self, fresh: Sequence[str]) -> None:
        """Go on with the layer below; `fresh` was found in this one."""
        self.found += fresh
        self._gone |= self._taken_away
        self._gone.update(fresh)

    def _is_hidden(self, path: str) -> bool:
        parts = path.split("/")
        return any("/".join(parts[:length]) in self._gone for length in range(len(parts) + 1))


@dataclass
class _Artifact:
    """The layers of one artifact or image, and what was fetched in order to search it.

    Only a layer in which something was found stays on disk, and only for a second file that may lie there.
    """

    client: RegistryClient
    reference: Reference
    layers: Sequence[Descriptor]
    keeps: bool
    """Whether another file is looked for after the first."""
    kept: dict[str, Path] = field(default_factory=dict)
    fetched_bytes: int = 0


@asynccontextmanager
async def oci_files(
    source: OciSource, allowance: Allowance, access: SourceAccess
) -> AsyncIterator[Fetch[OciFile]]:
    """Open what fetches files of the artifact or image; raises BuildError.

    Registries that the operator's own configuration names may lie at addresses that are refused to others.
    The reference is resolved once: model and weights are of one artifact, whatever its tag does meanwhile.
    """
    try:
        reference = parse_reference(source.reference)
    except InvalidReference as error:
        raise fail(Reason.SOURCE_INVALID, str(error)) from error
    policy = _ANYWHERE if reference.registry in access.configured else allowance.policy
    async with guarded_session(policy, access.authorities or None) as session:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=allowance.idle_seconds)
        client = RegistryClient(
            session,
            credentials=access.logins,
            plain_http=access.plain_http,
            retry=allowance.retry,
            timeout=timeout,
        )
        with _in_words(reference):
            layers = await _read_layers(client, reference)
            artifact = _Artifact(client, reference, layers, keeps=source.weights is not None)

        async def fetch(
            file: OciFile, endings: tuple[str, ...], destination: Path, allowance: Allowance
        ) -> SourceFile:
            with _in_words(reference):
                wanted = _Wanted(file.path.strip("/"), endings)
                return await _fetch(artifact, wanted, destination, allowance)

        try:
            yield fetch
        finally:
            for path in artifact.kept.values():
                path.unlink(missing_ok=True)


async def _read_layers(client: RegistryClient, reference: Reference) -> tuple[Descriptor, ...]:
    manifest = await client.get_manifest(reference)
    if manifest.descriptor.media_type in INDEX_TYPES:
        child = _any_child(parse_index(manifest.body).manifests)
        manifest = await client.get_manifest(reference.with_digest(child.digest))
    return parse_manifest(manifest.body).layers


def _any_child(children: Sequence[Descriptor]) -> Descriptor:
    # A model is the same for every platform, and its SHA-256 is checked: any child will do.
    if not children:
        raise InvalidImage("The index is empty.")
    real = [child for child in children if child.platform is None or child.platform.os != "unknown"]
    return next((child for child in real if child.platform == _PREFERRED), (real or children)[0])


def file_of(layer: Descriptor) -> str:
    """Give the path of the file that a layer is; empty where it holds files, or does not say."""
    title = layer.annotations.get(TITLE, "")
    if title and layer.annotations.get(UNPACK) != "true":
        return title.strip("/")
    if _TAR.search(layer.media_type):
        return ""
    return next((layer.annotations[key].strip("/") for key in FILE_PATHS if key in layer.annotations), "")


async def _fetch(artifact: _Artifact, wanted: _Wanted, destination: Path, allowance: Allowance) -> SourceFile:
    named = [(path, layer) for layer in artifact.layers if (path := file_of(layer)) and wanted(path)]
    if named:
        _check_single(artifact, [path for path, _ in named])
        path, layer = named[0]
        fetched = await _save_blob(artifact, layer, destination, allowance)
        return SourceFile(destination, path, fetched.sha256, fetched.size)
    return await _search_layers(artifact, wanted, destination, allowance)


async def _search_layers(
    artifact: _Artifact, wanted: _Wanted, destination: Path, allowance: Allowance
) -> SourceFile:
    deadline = time.monotonic() + allowance.total_seconds
    limits = ArchiveLimits(allowance.max_bytes, allowance.max_bytes * EXPANSION, deadline)
    inner = destination.with_suffix(".found")
    view = _View(wanted)
    for layer in reversed(_searched(artifact.layers, wanted)):
        blob = await _searched_blob(artifact, layer, destination.parent, allowance)
        fresh = await asyncio.to_thread(extract_file, blob, view, inner, limits, view.pass_over)
        if not (artifact.keeps and fresh and not view.found):
            artifact.kept.pop(layer.digest).unlink()
        if fresh and not view.found:
            inner.replace(destination)
        inner.unlink(missing_ok=True)
        view.descend(fresh)
        if view.found and wanted.path:
            break  # a file of a lower layer would be hidden by this one
    if not view.found:
        raise fail(Reason.SOURCE_INVALID, f"{artifact.reference} holds {wanted}{_instead(view, wanted)}.")
    _check_single(artifact, view.found)
    return await asyncio.to_thread(describe, destination, view.found[0])


def _instead(view: _View, wanted: _Wanted) -> str:
    parts = wanted.path.split("/")
    for length in range(1, len(parts) + 1):
        if (start := "/".join(parts[:length])) in view.links:
            return f", but a link {start!r}: name the file that it leads to"
    return ""


def _searched(layers: Sequence[Descriptor], wanted: _Wanted) -> list[Descriptor]:
    tars = [layer for layer in layers if _TAR.search(layer.media_type) and not file_of(layer)]
    return [layer for layer in tars if wanted.path or not _NO_MODEL.search(layer.media_type)]


def _check_single(artifact: _Artifact, paths: Sequence[str]) -> None:
    if len(paths) > 1:
        shown = ", ".join(sorted(paths)[:5])
        raise fail(
            Reason.SOURCE_INVALID,
            f"{artifact.reference} holds {len(paths)} files that could be meant ({shown}): "
            "name one by `path`.",
        )


async def _searched_blob(artifact: _Artifact, layer: Descriptor, folder: Path, allowance: Allowance) -> Path:
    """Fetch a layer, unless it was kept."""
    if layer.digest not in artifact.kept:
        artifact.fetched_bytes += layer.size
        most = EXPANSION * allowance.max_bytes
        if artifact.fetched_bytes > most:
            raise fail(
                Reason.SOURCE_TOO_LARGE,
                f"{artifact.reference} has more than {most} bytes of layers to be searched: put the model "
                "into a layer on top and name it by `path`, or make it a file of an artifact.",
            )
        path = folder / layer.digest.replace(":", "-")
        artifact.kept[layer.digest] = path
        await _save_blob(artifact, layer, path, allowance)
    return artifact.kept[layer.digest]


async def _save_blob(
    artifact: _Artifact, layer: Descriptor, destination: Path, allowance: Allowance
) -> SourceFile:
    check_size(layer.size, allowance.max_bytes)
    async with aclosing(artifact.client.open_blob(artifact.reference, layer)) as chunks:
        return await save(_paced(chunks, artifact.reference, allowance), destination, layer.size, allowance)


async def _paced(
    chunks: AsyncIterator[bytes], reference: Reference, allowance: Allowance
) -> AsyncIterator[bytes]:
    """Pass the chunks on as long as they come fast enough; raises BuildError(SourceTimeout)."""
    pace = Pace(allowance.idle_seconds, allowance.slowest_rate)
    async for chunk in chunks:
        yield chunk
        if not pace.keeps(len(chunk)):
            slow = f"{reference} comes with less than {allowance.slowest_rate} bytes per second."
            raise fail(Reason.SOURCE_TIMEOUT, slow)


@contextmanager
def _in_words(reference: Reference) -> Iterator[None]:
    try:
        yield
    except (errors.RegistryError, ForbiddenAddress, aiohttp.ClientError) as error:
        raise _failure(reference, error) from error
    except (InvalidImage, InvalidDescriptor, InvalidArchive) as error:
        raise fail(Reason.SOURCE_INVALID, f"{reference}: {error}") from error


def _failure(reference: Reference, error: Exception) -> BuildError:
    match error:
        case ForbiddenAddress():
            return fail(Reason.SOURCE_FORBIDDEN_ADDRESS, f"{reference} is refused: {error}.")
        case errors.NotFound():
            return fail(Reason.SOURCE_NOT_FOUND, f"{reference} does not exist, or is hidden from us.")
        case errors.Unauthorized():
            return fail(Reason.SOURCE_DENIED, f"{reference} cannot be read: {error}")
        case errors.TooLarge():
            return fail(Reason.SOURCE_TOO_LARGE, f"{reference}: {error}")
        case errors.ProtocolError() | errors.DigestMismatch():
            return fail(Reason.SOURCE_UNAVAILABLE, f"{reference}: {error}")
        case _:
            return fail(Reason.SOURCE_UNAVAILABLE, f"{reference} cannot be read: {error}")
