"""A virtual environment for each peer, from its locked requirements, kept from run to run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.machine import BenchError
from cluster.progress import Progress

_REQUIREMENTS = Path(__file__).parent / "requirements"


def make_environments(peers: Iterable[str], progress: Progress) -> dict[str, Path]:
    """Return the environment of each peer, made where it is not there yet. Raises BenchError."""
    return {peer: _make_environment(peer, progress) for peer in peers}


def _make_environment(peer: str, progress: Progress) -> Path:
    requirements = _REQUIREMENTS / f"{peer}.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgemodel" / "bench"
    environment = base / f"{peer}-{key}"
    if environment.is_dir():
        return environment
    base.mkdir(parents=True, exist_ok=True)
    with progress.step(f"install {peer}"), tempfile.TemporaryDirectory(dir=base) as temporary:
        # Built beside its place, so that an interrupted installation is never taken for a whole one.
        unfinished = Path(temporary) / "environment"
        python = str(unfinished / "bin" / "python")
        _uv("venv", "--relocatable", "--python", sys.executable, str(unfinished))
        _uv(
            "pip",
            "install",
            "--require-hashes",
            "--compile-bytecode",
            "--python",
            python,
            "-r",
            str(requirements),
        )
        shutil.move(unfinished, environment)
    return environment


def _uv(*arguments: str) -> None:
    done = subprocess.run(["uv", *arguments, "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"`uv {' '.join(arguments)}` failed:\n{done.stderr.strip()[-1000:]}")
