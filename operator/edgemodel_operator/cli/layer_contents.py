"""What a layer holds, told from its first bytes: enough for a person, without moving the layer."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress

import zstandard

from edgemodel_operator.build.parts import MANIFEST_NAME
from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference

MODEL_FOLDER = "models/"
_ENOUGH_BYTES = 256 * 1024
"""More than one block of any compressor: there is nothing to see in less than one."""
_FEW = 4


async def describe_layer(store: ImageStore, image: Reference, layer: Descriptor) -> str:
    """Say what is in a layer: the files of a model, or where the first files of another layer lie.

    Raises RegistryError. The bytes are not proved to be those of the layer's digest: that takes all of them.
    """
    start = bytearray()
    async with aclosing(store.open_blob(image, layer)) as chunks:
        async for chunk in chunks:
            start += chunk
            if len(start) >= _ENOUGH_BYTES:
                break
    return summarize(first_files(bytes(start), layer.media_type))


def first_files(start: bytes, media_type: str) -> tuple[str, ...]:
    """Give the names of the files whose headers are in the first bytes of a compressed layer."""
    names: list[str] = []
    plain = io.BytesIO(_decompress(start, media_type))
    # The archive is cut somewhere: what was read until then is what there is to know.
    with suppress(tarfile.TarError, EOFError), tarfile.open(fileobj=plain, mode="r|") as archive:
        names += (member.name for member in archive if not member.isdir())
    return tuple(names)


def summarize(files: Iterable[str]) -> str:
    """Say in a few words where files lie: those of a model by name, others by their folders.

    The layer with the manifest holds the graph of a model; the others of its layers hold weights.
    """
    names = tuple(files)
    if names and all(name.startswith(MODEL_FOLDER) for name in names):
        files_of_model = [name.split("/", 2)[-1] for name in names]
        part = "model" if MANIFEST_NAME in files_of_model else "weights"
        return f"{part}: {_few(files_of_model)}"
    return _few(list(dict.fromkeys("/".join(name.split("/")[:-1][:5]) or name for name in names)))


def _few(words: list[str]) -> str:
    return ", ".join(words[:_FEW]) + (", …" if len(words) > _FEW else "")


def _decompress(start: bytes, media_type: str) -> bytes:
    def plain(data: bytes) -> bytes:
        return data

    def gzip(data: bytes) -> bytes:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _ENOUGH_BYTES)

    def zstd(data: bytes) -> bytes:
        # Without `finish` a frame that is cut gives what came until then.
        with zstandard.ZstdDecompressor().stream_reader(data, read_size=4096) as reader:
            return _read_until_broken(reader.read)

    way = next((way for end, way in (("zstd", zstd), ("gzip", gzip)) if media_type.endswith(end)), plain)
    try:
        return way(start)
    except (zlib.error, zstandard.ZstdError):
        return b""


def _read_until_broken(read: Callable[[int], bytes]) -> bytes:
    found = bytearray()
    with suppress(zstandard.ZstdError):
        while len(found) < _ENOUGH_BYTES and (piece := read(4096)):
            found += piece
    return bytes(found)
