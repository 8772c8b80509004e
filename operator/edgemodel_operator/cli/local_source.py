"""A model on the user's own disk in place of the one that the spec names.

The worker reads it as a file of a volume, which the Jobs of a cluster mount; nothing else differs.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgemodel_operator.api.model import ModelFormat, ModelSpec
from edgemodel_operator.api.source import Archive, PvcFile, PvcSource, Source
from edgemodel_operator.cli.plan import NotPossible

_CLAIM = "local"
_ARCHIVE = "folder.tar"


@dataclass(frozen=True)
class LocalSource:
    """A source in a folder of this machine."""

    source: Source
    folder: Path


@contextmanager
def local_source(path: Path, model: ModelSpec) -> Iterator[LocalSource]:
    """Give the source for a file or folder while the block lasts. Raises NotPossible, OSError."""
    if path.is_dir():
        with TemporaryDirectory(prefix="edgemodel-source-") as folder:
            _pack(path, Path(folder, _ARCHIVE))
            opened = model.source.archive or Archive()
            source = Source(pvc=PvcSource(claim_name=_CLAIM, path=_ARCHIVE), archive=opened)
            yield LocalSource(source, Path(folder))
    else:
        yield _of_file(path.absolute(), model)


def _of_file(path: Path, model: ModelSpec) -> LocalSource:
    main, *others = (digest or None for digest in model.source.digests)
    weights = None
    if model.format is ModelFormat.OPENVINO and model.source.archive is None:
        beside = path.with_suffix(".bin")
        if not beside.is_file():
            raise NotPossible(f"{path.name} is an OpenVINO IR, but there is no {beside.name} beside it")
        weights = PvcFile(path=beside.name, sha256=others[0] if others else None)
    elif others:
        raise NotPossible(f"the model has weights in a file of their own: give the folder {path.parent}")
    pvc = PvcSource(claim_name=_CLAIM, path=path.name, sha256=main, weights=weights)
    return LocalSource(Source(pvc=pvc, archive=model.source.archive), path.parent)


def _pack(folder: Path, archive: Path) -> None:
    """Write the folder as a tar in which nothing but names and content counts."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() else 0o644
        return member

    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if not path.is_symlink():
                tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)
