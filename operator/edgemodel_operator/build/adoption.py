"""Taking over an image that a Job pushed: nothing is signed because a pod in somebody's namespace says so.

Who may create pods or enter them there can have any image pushed and named as the result. So it is made
again from its own parts:

1. The index is read by the digest that was answered; it names the build key that the request has.
2. Every image of a platform has the layers of the published runtime below, or of the one that a Dockerfile
   made, and the same layers on top.
3. Each layer on top is opened as an untrusted archive, holds plain files in the model's folder alone, and
   written again from them gives the same blob: no reader can see in it what we did not.
4. Grafting those layers again gives the very digest.
5. Bills of materials and provenance are made here, too, and attached unless the Job has attached the same.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.api.names import GROUP
from edgemodel_operator.build.access import make_destination, open_store
from edgemodel_operator.build.archives import InvalidArchive
from edgemodel_operator.build.failures import Reason, Step, fail
from edgemodel_operator.build.graft import Runtime, graft_image
from edgemodel_operator.build.layers import WrittenLayer
from edgemodel_operator.build.layout import COMPRESSORS, ModelFacts
from edgemodel_operator.build.made_runtime import read_made_runtimes
from edgemodel_operator.build.origin.attach import attach_origin, origin_of
from edgemodel_operator.build.parts import MANIFEST_NAME
from edgemodel_operator.build.publish import Destination
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import Adoption, BuildRequest, BuildResult
from edgemodel_operator.build.runtime import RuntimeChild, read_runtime
from edgemodel_operator.build.unpacking import UnpackLimits, unpack
from edgemodel_operator.core.annotations import BUILD_KEY, read_report
from edgemodel_operator.core.build_key import build_key
from edgemodel_operator.oci import errors
from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.image import ImageIndex, InvalidImage, parse_index, parse_manifest
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.layer import File, InvalidEntry, Layer, write_layer
from edgemodel_operator.oci.reference import Reference

_SECONDS = 1800.0
_OVERHEAD_BYTES = 64 * 1024 * 1024
"""What the layers of a model may have besides the bytes of its files."""


class _Forged(Exception):  # noqa: N818 - reads as the fact it states
    """The image is not what a build of ours makes; the message is a sentence."""


async def adopt_image(request: BuildRequest, work: Path, reporter: Reporter) -> BuildResult:
    """Prove that the image of the request's `adoption` is what the rest of it asks for.

    `work` is a folder of its own. Raises BuildError.
    """
    adoption = request.adoption
    if adoption is None:
        raise ValueError("the request names no image to adopt")
    async with open_store(request) as store:
        with reporter.step(Step.PUSH), _in_words(adoption.index_digest):
            destination = make_destination(request, store)
            return await _Adoption(request, destination, work).prove(adoption, reporter)


@contextmanager
def _in_words(digest: str) -> Iterator[None]:
    try:
        yield
    except (_Forged, InvalidImage, InvalidArchive, InvalidEntry) as error:
        raise fail(
            Reason.JOB_RESULT_INVALID,
            f"The Job answered with {digest}. It is not what was asked for, and is not signed: {error}",
        ) from error
    except errors.RegistryError as error:
        raise fail(Reason.REGISTRY_UNAVAILABLE, f"The image of the Job cannot be read: {error}") from error


@dataclass(frozen=True)
class _Adoption:
    request: BuildRequest
    to: Destination
    work: Path

    @property
    def store(self) -> ImageStore:
        return self.to.client

    async def prove(self, adoption: Adoption, reporter: Reporter) -> BuildResult:
        digest = adoption.index_digest
        key = build_key(self.request.inputs([file.sha256 for file in adoption.fetched]))
        target, runtime_name = self.to.target, self.to.runtime
        # (1) The index.
        found = await self.store.get_manifest(target.with_digest(digest))
        index = parse_index(found.body)
        report = read_report(index.annotations)
        if index.annotations.get(BUILD_KEY) != key or report is None:
            raise _Forged("Its index speaks of another build.")
        # (2) The layers of the runtime, and those on top.
        platforms = tuple(platform.value for platform in self.request.image.platforms)
        made = self.request.made_runtimes
        runtime = (
            await read_made_runtimes(self.store, made)
            if made
            else await read_runtime(self.store, runtime_name, platforms)
        )
        tops = {await self._top_of(target, index, child) for child in runtime}
        if len(tops) != 1 or len(index.manifests) != len(runtime):
            raise _Forged("Its platforms do not share the layers of the model.")
        # (3) The layers of the model.
        source = index.annotations.get(f"{GROUP}/model-sha256", "")
        facts = ModelFacts(self.request.model_name, self.request.model, source, key)
        layers = [
            await self._rebuild(target, facts, layer, self.work / f"adopted-{number}")
            for number, layer in enumerate(tops.pop())
        ]
        # (4) The whole.
        again = graft_image(facts, report, Runtime(runtime_name.digest or "", runtime), layers)
        if again.descriptor.digest != digest:
            raise _Forged("Built again from its parts it has another digest.")
        # (5) Its documents.
        files = self._files_of(facts)
        documents = await attach_origin(
            self.to, again, origin_of(self.request, key, runtime, adoption.fetched, files, report)
        )
        return BuildResult(
            index_digest=digest,
            image=str(target.with_digest(digest)),
            platforms=tuple(sorted(str(child.platform) for child in again.children)),
            report=report,
            build_key=key,
            documents=tuple(document.descriptor.digest for document in documents),
            bytes_pushed=0,
            seconds=reporter.seconds,
        )

    def _files_of(self, facts: ModelFacts) -> tuple[ModelFile, ...]:
        """Read which files the model has from its manifest, which the server will hold them against."""
        try:
            (path,) = self.work.glob(f"adopted-*/{facts.folder}/{MANIFEST_NAME}")
            listed = json.loads(path.read_bytes())["files"]
            return tuple(
                ModelFile(name=one["path"], sha256=one["sha256"], size=one["size"]) for one in listed
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _Forged("Its manifest of the model cannot be read.") from error

    async def _top_of(
        self, target: Reference, index: ImageIndex, child: RuntimeChild
    ) -> tuple[Descriptor, ...]:
        described = index.choose(child.platform)
        if described is None:
            raise _Forged(f"It has no image for {child.platform}.")
        manifest = await self.store.get_manifest(target.with_digest(described.digest))
        layers = parse_manifest(manifest.body).layers
        below = child.layers
        if [layer.digest for layer in layers[: len(below)]] != [layer.digest for layer in below]:
            raise _Forged(f"The image for {child.platform} does not stand on the runtime image.")
        return layers[len(below) :]

    async def _rebuild(
        self, target: Reference, facts: ModelFacts, layer: Descriptor, folder: Path
    ) -> WrittenLayer:
        limit = self.request.source_limits.max_bytes + _OVERHEAD_BYTES
        if layer.size > limit:
            raise _Forged(f"A layer of it has {layer.size} bytes.")
        blob = folder.with_suffix(".blob")
        with blob.open("wb") as out:
            async with aclosing(self.store.open_blob(target, layer)) as chunks:
                async for chunk in chunks:
                    out.write(chunk)
        written = await asyncio.to_thread(self._write_again, facts, blob, folder, limit)
        if written.layer.descriptor.digest != layer.digest:
            raise _Forged("A layer of it is not written as ours are.")
        return written

    def _write_again(self, facts: ModelFacts, blob: Path, folder: Path, limit: int) -> WrittenLayer:
        names = unpack(blob, folder, UnpackLimits(limit, limit, time.monotonic() + _SECONDS, "layer"))
        blob.unlink()
        strange = [name for name in names if not name.startswith(f"{facts.folder}/")]
        if strange:
            raise _Forged(f"A layer of it holds {strange[0]!r}, which is no file of the model.")
        again = folder.with_suffix(".again")
        with again.open("wb") as out:
            layer: Layer = write_layer(
                [File(name, folder / name) for name in names],
                out,
                compressor=COMPRESSORS[self.request.image.compression],
            )
        return WrittenLayer(layer, again)
