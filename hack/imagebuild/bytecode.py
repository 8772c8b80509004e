"""Precompiled Python: images are read-only, so that nothing would ever be compiled for the second start.

Imports become three times as fast. The files carry a hash and are never checked against their source.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from edgemodel_operator.oci.layer import Entry, File
from edgemodel_operator.oci.splice import open_content

from .cache import Cache
from .locked import PYTHON_VERSION

_TAG = f"cpython-{PYTHON_VERSION.replace('.', '')}"


class WrongPython(RuntimeError):  # noqa: N818 - states a fact
    """This interpreter cannot compile for the Python in the images."""


def with_bytecode(entries: Sequence[Entry], cache: Cache) -> tuple[Entry, ...]:
    """Return the entries and a compiled file beside each Python source, compiling what the cache lacks."""
    running = ".".join(map(str, sys.version_info[:2]))
    if running != PYTHON_VERSION:
        raise WrongPython(f"The images hold Python {PYTHON_VERSION}; run this with it, not with {running}.")
    sources = [entry for entry in entries if isinstance(entry, File) and entry.path.endswith(".py")]
    wanted = [(entry, _cached(entry, cache)) for entry in sources]
    _compile([(entry, path) for entry, path in wanted if not path.exists()])
    compiled = [File(_compiled_path(entry.path), path) for entry, path in wanted if path.exists()]
    return (*entries, *compiled)


def _cached(entry: File, cache: Cache) -> Path:
    # The path is part of the code (tracebacks show it), and every patch release may compile differently.
    with open_content(entry.source) as source:
        content = source.read()
    key = hashlib.sha256(b"\0".join([sys.version.encode(), entry.path.encode(), content])).hexdigest()
    return cache.folder("bytecode", key[:2]) / f"{key}.pyc"


def _compiled_path(path: str) -> str:
    source = PurePosixPath(path)
    return str(source.parent / "__pycache__" / f"{source.stem}.{_TAG}.pyc")


def _compile(missing: Iterable[tuple[File, Path]]) -> None:
    lines = [
        json.dumps([str(entry.source), f"/{entry.path}", str(path)])
        for entry, path in missing
        if isinstance(entry.source, Path)
    ]
    if lines:
        worker = Path(__file__).with_name("compile_worker.py")
        subprocess.run(
            [sys.executable, "-I", str(worker)],
            input="\n".join(lines),
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            text=True,
            check=True,
            timeout=900,
        )
