"""Key pairs as files: `cosign.key` and `cosign.pub` in a folder, whole or not there, and never replaced."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgemodel_operator.signing.keys import SECRET_PRIVATE_KEY, SECRET_PUBLIC_KEY, KeyPair


class KeyFilesExist(Exception):  # noqa: N818 - reads as the fact it states
    """A file of that name is there already."""


def write_key_pair(folder: Path, make: Callable[[], KeyPair]) -> tuple[Path, Path]:
    """Write the pair that `make` makes; gives the paths of its private and public half.

    Raises KeyFilesExist, before a key is made where that can be, and OSError. The private half only its
    owner can read. It appears first: killed in between, it still tells the public half.
    """
    private, public = folder / SECRET_PRIVATE_KEY, folder / SECRET_PUBLIC_KEY
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise _exists(path)
    pair = make()
    _write_new(private, pair.private_pem, 0o600)
    _write_new(public, pair.public_pem, 0o644)
    return private, public


def _write_new(path: Path, content: bytes, mode: int) -> None:
    # A link, as against a rename, fails when somebody was quicker; and who reads sees all of it or nothing.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        raise _exists(path) from None
    finally:
        Path(name).unlink()


def _exists(path: Path) -> KeyFilesExist:
    return KeyFilesExist(f"{path} exists, and keys are never replaced: choose another folder")
