"""Reading an image as a builder hands it over: what `docker save` writes, or an OCI image layout.

Formats: Docker's `manifest.json` (image specification 1.2, "combined image JSON + filesystem changeset"),
which engines before 25 write beside folders of layers and engines from 25 on beside `blobs/sha256`; and OCI
image specification 1.1, `image-layout.md`. Layers may be compressed or not. Nothing is unpacked by name.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from edgemodel_operator.oci.descriptor import INDEX_TYPES
from edgemodel_operator.oci.image import InvalidImage, parse_index, parse_manifest

_MAX_JSON_BYTES = 4 * 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_Open = Callable[[str], IO[bytes]]


@dataclass(frozen=True)
class SavedImage:
    """An image on disk that a builder made; its layers bottom first, each under its `diff_id`."""

    config: dict[str, Any]
    diff_ids: tuple[str, ...]
    _members: tuple[str, ...]
    _open: _Open

    @contextmanager
    def open_layer(self, diff_id: str) -> Iterator[IO[bytes]]:
        """Open the tar of a layer, decompressed; only reading it to the end tells whether it is the one."""
        member = self._members[self.diff_ids.index(diff_id)]
        with ExitStack() as stack:
            yield decompressed(stack, lambda: self._open(member))


@contextmanager
def open_saved_image(path: Path) -> Iterator[SavedImage]:
    """Open the archive of one image, as `docker save` writes it, or the folder of an OCI layout.

    Blocking. Raises InvalidImage when it is none, OSError.
    """
    if path.is_dir():
        yield _from_layout(lambda name: (path / name).open("rb"))
        return
    try:
        with tarfile.open(path, mode="r:") as archive:
            members = {member.name.removeprefix("./"): member for member in archive}
            yield _from_archive(members, lambda name: _open_member(archive, members, name))
    except tarfile.TarError as error:
        raise InvalidImage(f"The builder's archive cannot be read: {error}.") from error


def decompressed(stack: ExitStack, open_raw: Callable[[], IO[bytes]]) -> IO[bytes]:
    """Open a blob and whatever compresses it, told apart by its first bytes; the stack closes both."""
    raw = stack.enter_context(open_raw())
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(_GZIP_MAGIC):
        return cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=raw)))
    if magic == _ZSTD_MAGIC:
        return stack.enter_context(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return raw


def _from_archive(members: dict[str, tarfile.TarInfo], open_file: _Open) -> SavedImage:
    if "manifest.json" not in members:
        return _from_layout(open_file)
    listed = _json(open_file, "manifest.json")
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
        raise InvalidImage("The builder's archive does not hold exactly one image.")
    layers = listed[0].get("Layers")
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise InvalidImage("The manifest.json of the builder's archive has no list of layers.")
    return _checked(_json(open_file, str(listed[0].get("Config"))), tuple(layers), open_file)


def _from_layout(open_file: _Open) -> SavedImage:
    body = _read(open_file, "index.json")
    for _ in range(3):  # an index may lead to an index, as engines with several platforms write it
        entries = [entry for entry in parse_index(body).manifests if entry.artifact_type is None]
        if not entries:
            break
        body = _read(open_file, _blob(entries[0].digest))
        if entries[0].media_type not in INDEX_TYPES:
            manifest = parse_manifest(body)
            layers = tuple(_blob(layer.digest) for layer in manifest.layers)
            return _checked(_json(open_file, _blob(manifest.config.digest)), layers, open_file)
    raise InvalidImage("The builder's image layout holds no image.")


def _checked(config: object, layers: tuple[str, ...], open_file: _Open) -> SavedImage:
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(config, dict) or not isinstance(diff_ids, list):
        raise InvalidImage("The configuration of the builder's image has no rootfs.diff_ids.")
    if len(diff_ids) != len(layers) or not all(isinstance(item, str) for item in diff_ids):
        raise InvalidImage(
            f"The builder's image has {len(layers)} layers, its configuration lists {len(diff_ids)}."
        )
    return SavedImage(config, tuple(diff_ids), layers, open_file)


def _open_member(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str) -> IO[bytes]:
    member = members.get(name)
    for _ in range(2):  # engines before 25 write a layer that comes twice as a link
        if member is None or not member.issym():
            break
        member = members.get(_resolve(member))
    content = archive.extractfile(member) if member is not None and member.isreg() else None
    if content is None:
        raise InvalidImage(f"The builder's archive has no file {name!r}.")
    return content


def _resolve(link: tarfile.TarInfo) -> str:
    parts = link.name.removeprefix("./").split("/")[:-1]
    for part in link.linkname.split("/"):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(open_file: _Open, name: str) -> Any:
    body = _read(open_file, name)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"The file {name} of the builder's image is not JSON.") from error


def _read(open_file: _Open, name: str) -> bytes:
    try:
        with open_file(name) as file:
            body = file.read(_MAX_JSON_BYTES + 1)
    except FileNotFoundError as error:
        raise InvalidImage(f"The builder's image has no file {name}.") from error
    if len(body) > _MAX_JSON_BYTES:
        raise InvalidImage(f"The file {name} of the builder's image has more than {_MAX_JSON_BYTES} bytes.")
    return body
