"""A copy of this interpreter that runs outside of the container: loader, libraries, what the client imports.

The node may have no Python, or another one, or another C library. What has to be copied is found by running
the client's imports here and asking the interpreter and the loader what they loaded, so no list can grow old.
"""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.node import client
from edgemodel_operator.node.record import sync_folder

CLIENT = Path(client.__file__)
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PROBE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("client", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
maps = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if len(line.split()) >= 6}
print(json.dumps({"modules": sorted(filter(None, modules)), "maps": sorted(maps)}))
"""


class CannotCopy(Exception):  # noqa: N818 - reads as the fact it states
    """This interpreter cannot be copied; the message says why."""


@dataclass(frozen=True)
class Parts:
    """The files that make up the copy."""

    executable: Path
    loader: Path
    libraries: dict[str, Path]
    """By the names under which they are asked for."""
    modules: tuple[Path, ...]


def command(runtime: Path, state: Path, hook: Path) -> list[str]:
    """Give the command line that runs the client from a copy; containerd's arguments follow."""
    return [
        str(runtime / "loader"),
        "--library-path",
        str(runtime / "libraries"),
        str(runtime / "bin" / _PYTHON),
        "-I",
        "-S",
        str(runtime / "client.py"),
        str(state),
        str(hook),
    ]


def install_runtime(state: Path) -> Path:
    """Make the copy below the state folder, unless it is there and whole; returns its folder.

    Its name contains a hash of its content. Other copies are removed. Raises CannotCopy and OSError.
    """
    partial = state / ".runtime.partial"
    shutil.rmtree(partial, ignore_errors=True)
    _fill(partial, find_parts())
    _require_independence(partial)
    runtime = state / f"runtime-{_hash(partial)}"
    if runtime.is_dir() and _hash(runtime) == runtime.name.removeprefix("runtime-"):
        shutil.rmtree(partial)
    else:
        shutil.rmtree(runtime, ignore_errors=True)
        _sync(partial)
        partial.rename(runtime)
        sync_folder(state)
    return runtime


def remove_runtimes(state: Path, *, but: Path | None = None) -> None:
    """Remove copies that nothing starts any more."""
    for folder in state.glob("runtime-*"):
        if folder != but:
            shutil.rmtree(folder, ignore_errors=True)


def find_parts() -> Parts:
    """Find what the client needs of this interpreter. Raises CannotCopy."""
    executable = Path(sys.executable).resolve()
    probe = subprocess.run(
        [str(executable), "-I", "-S", "-c", _PROBE, str(CLIENT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if probe.returncode:
        raise CannotCopy(f"the client does not run here: {probe.stderr.strip()[-500:]}")
    found = json.loads(probe.stdout)
    modules = tuple(Path(name) for name in found["modules"] if Path(name) != CLIENT)
    loaders = [Path(name) for name in found["maps"] if re.match(r"ld-.*\.so", Path(name).name)]
    if len(loaders) != 1:
        raise CannotCopy("this interpreter has no dynamic loader")
    libraries: dict[str, Path] = {}
    for program in (executable, *(module for module in modules if module.suffix == ".so")):
        libraries |= _libraries_of([str(loaders[0])], program)
    return Parts(executable, loaders[0], libraries, modules)


def _libraries_of(loader: list[str], program: Path) -> dict[str, Path]:
    """Ask a loader what a program or library needs, by name. Raises CannotCopy if something is missing."""
    asked = subprocess.run(
        [*loader, "--list", str(program)], capture_output=True, text=True, check=False, timeout=60
    )
    if asked.returncode:
        raise CannotCopy(f"{program} does not load: {asked.stderr.strip()[-500:]}")
    # Lines as `libz.so.1 => /lib/libz.so.1 (0x7f…)`; the loader itself has no arrow.
    found = re.findall(r"^\s*(\S+) => (/.+) \(0x[0-9a-f]+\)$", asked.stdout, re.MULTILINE)
    return {name: Path(path) for name, path in found if "/" not in name}


def _require_independence(folder: Path) -> None:
    """Make sure that the copy takes nothing from the machine that it runs on. Raises CannotCopy."""
    loader = [str(folder / "loader"), "--library-path", str(folder / "libraries")]
    for program in (folder / "bin" / _PYTHON, *sorted(folder.rglob("lib-dynload/*.so"))):
        for name, path in _libraries_of(loader, program).items():
            if not path.is_relative_to(folder):
                raise CannotCopy(f"the copy would take {name} from {path}")


def _fill(folder: Path, parts: Parts) -> None:
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    home = folder / "lib" / _PYTHON
    # Without these two the interpreter does not know where it is.
    (home / "lib-dynload").mkdir(parents=True)
    modules = {*parts.modules, standard / "os.py"}
    for module in sorted(modules):
        target = home / module.resolve().relative_to(standard)
        _copy(module, target)
        if target.suffix == ".py":
            py_compile.compile(
                str(target), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                dfile=str(module),
            )  # fmt: skip
    for name, library in parts.libraries.items():
        _copy(library, folder / "libraries" / name)
    _copy(parts.loader, folder / "loader")
    _copy(parts.executable, folder / "bin" / _PYTHON)
    _copy(CLIENT, folder / "client.py")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if os.access(source, os.X_OK) or target.name == "loader" else 0o644)


def _hash(folder: Path) -> str:
    """Name the content of a folder: paths and bytes."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sync(folder: Path) -> None:
    """Bring a whole tree to the disk, folders last."""
    for path in sorted(folder.rglob("*"), reverse=True):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)
