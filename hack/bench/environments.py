"""A virtual environment for each server, from its locked requirements, kept from run to run.

Each has its own copy of every file. Installed as links to one store, they would share pages of memory, and a
server would look smaller than it is where it runs alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.contenders import OURS
from bench.machine import BenchError, describe_interpreter, find_interpreter
from cluster.progress import Progress

_PROJECT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
"""The peers' locked requirements: `NAME.txt`, made of `NAME.in` with `uv pip compile --generate-hashes
--no-header --no-annotate --no-emit-index-url --python-version 3.11 --python-platform linux`."""


def make_environments(peers: Iterable[str], progress: Progress) -> dict[str, Path]:
    """Return the environments of our server and of each peer, made where they are missing."""
    locked = {peer: (REQUIREMENTS / f"{peer}.txt").read_text() for peer in peers}
    ours = _uv("export", "--frozen", "--project", str(_PROJECT), "--package", OURS,
               "--no-emit-workspace", "--no-dev", "--no-header", "--no-annotate")  # fmt: skip
    return {name: _make_environment(name, text, progress) for name, text in {OURS: ours, **locked}.items()}


def _make_environment(name: str, requirements: str, progress: Progress) -> Path:
    key = hashlib.sha256(f"{describe_interpreter()}\n{requirements}".encode()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgemodel" / "bench"
    environment = base / f"{name}-{key}"
    if environment.is_dir():
        return environment
    base.mkdir(parents=True, exist_ok=True)
    with progress.step(f"install {name}"), tempfile.TemporaryDirectory(dir=base) as temporary:
        # Built beside its place, so that an interrupted installation is never taken for a whole one.
        unfinished = Path(temporary) / "environment"
        listed = Path(temporary) / "requirements.txt"
        listed.write_text(requirements)
        _uv("venv", "--relocatable", "--python", find_interpreter(), str(unfinished))
        _uv("pip", "install", "--require-hashes", "--compile-bytecode", "--link-mode", "copy",
            "--python", str(unfinished / "bin" / "python"), "--requirements", str(listed))  # fmt: skip
        shutil.move(unfinished, environment)
    return environment


def _uv(*arguments: str) -> str:
    done = subprocess.run(["uv", *arguments, "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"`uv {' '.join(arguments)}` failed:\n{done.stderr.strip()[-1000:]}")
    return done.stdout
