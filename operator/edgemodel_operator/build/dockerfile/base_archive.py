"""A published runtime image as an archive that an engine loads, so that it needs no registry.

Format: Docker image specification 1.2 (`manifest.json`), which every Docker Engine and Buildah load. Layers
lie in it uncompressed: older engines know no zstd.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tarfile
from contextlib import ExitStack, aclosing
from pathlib import Path

from edgemodel_operator.build.dockerfile.saved_image import decompressed
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.descriptor import Descriptor, canonical_json, sha256_digest
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference

_COPY_BYTES = 1024 * 1024


async def write_base_archive(
    store: ImageStore, reference: Reference, child: RuntimeChild, tag: str, folder: Path
) -> Path:
    """Write the runtime image of one platform as `base.tar` into the folder, under the name `tag`.

    Needs room for the image unpacked. Raises RegistryError, InvalidImage, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "base.tar"
    diff_ids = json.loads(child.config)["rootfs"]["diff_ids"]
    names = [f"{diff_id.removeprefix('sha256:')}/layer.tar" for diff_id in diff_ids]
    config = f"{sha256_digest(child.config).removeprefix('sha256:')}.json"
    manifest = canonical_json([{"Config": config, "RepoTags": [tag], "Layers": names}])
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        _add_bytes(archive, config, child.config)
        for name, layer in zip(names, child.layers, strict=True):
            blob = await _download(store, reference, layer, folder)
            await asyncio.to_thread(_add_layer, archive, name, blob, folder / "layer.tar")
            blob.unlink()
        _add_bytes(archive, "manifest.json", manifest)
    return path


async def _download(store: ImageStore, reference: Reference, layer: Descriptor, folder: Path) -> Path:
    path = folder / "layer.blob"
    with path.open("wb") as file:
        async with aclosing(store.open_blob(reference, layer)) as chunks:
            async for chunk in chunks:
                file.write(chunk)
    return path


def _add_layer(archive: tarfile.TarFile, name: str, blob: Path, plain: Path) -> None:
    with ExitStack() as stack, plain.open("wb") as out:
        shutil.copyfileobj(decompressed(stack, lambda: blob.open("rb")), out, _COPY_BYTES)
    header = tarfile.TarInfo(name)
    header.size = plain.stat().st_size
    with plain.open("rb") as content:
        archive.addfile(header, content)
    plain.unlink()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))
