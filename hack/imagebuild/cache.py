"""The build cache: finished results by the hash of everything that went into them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.oci.descriptor import canonical_json


@dataclass(frozen=True)
class Cache:
    """A folder that may be deleted at any time."""

    root: Path

    def folder(self, *parts: str) -> Path:
        """Return a folder in the cache, made if need be."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until no other build uses the cache, and keep others out until the block ends."""
        with (self.folder() / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def new_tree(self, kind: str, key: str) -> Iterator[Path]:
        """Yield an empty folder that becomes `tree(kind, key)` only if the block succeeds."""
        final = self.folder(kind) / key
        with tempfile.TemporaryDirectory(dir=self.folder("tmp")) as temporary:
            work = Path(temporary) / "tree"
            work.mkdir()
            yield work
            shutil.rmtree(final, ignore_errors=True)
            work.rename(final)

    def tree(self, kind: str, key: str) -> Path | None:
        """Return the finished folder of that key, if there is one."""
        path = self.root / kind / key
        return path if path.is_dir() else None


def default_cache() -> Cache:
    """Return the user's cache, below XDG_CACHE_HOME."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Cache(Path(base) / "edgemodel" / "images")


def key_of(*inputs: object) -> str:
    """Hash JSON-like inputs to a cache key."""
    return hashlib.sha256(canonical_json(inputs)).hexdigest()[:32]
