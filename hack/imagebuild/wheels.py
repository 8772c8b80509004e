"""A workspace distribution with its locked dependencies, installed for another platform by uv.

Only wheels, only with the hashes of the committed lock; nothing is built and nothing of the host is executed.
uv evaluates markers for the target platform (pip does not).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

from edgemodel_operator.oci.descriptor import Platform

from .cache import Cache, key_of
from .elf import strip_library
from .recipe import PythonPart

FORMAT = 2
"""Part of the cache key: raise it when the result for the same inputs changes."""

PYTHON_VERSION = "3.11"
_UV_PLATFORMS = {
    Platform("linux", "amd64"): "x86_64-manylinux_2_36",
    Platform("linux", "arm64"): "aarch64-manylinux_2_36",
}
_DROPPED = re.compile(
    r"(?:bin/|share/|include/|.*/__pycache__/|.*/tests/|.*\.(?:c|cc|cpp|h|hpp|pxd|pyi|pyx)$|[^/]+\.dist-info/"
    r"(?:RECORD|INSTALLER|REQUESTED|direct_url\.json|uv_cache\.json|entry_points\.txt|top_level\.txt|WHEEL)$"
    r"|[^/]*\.lock$)"
)
"""What no image needs of any wheel: programs, C sources, stubs, tests, and what installers leave behind."""


class WheelsUnavailable(RuntimeError):  # noqa: N818 - states a fact
    """uv could not provide the locked wheels; the message is uv's."""


def locked_requirements(part: PythonPart, project: Path) -> str:
    """Return the distribution's dependencies from the committed lock, with hashes."""
    command = ["uv", "export", "--frozen", "--no-dev", "--no-header", "--no-annotate", "--no-emit-workspace"]
    what = ["--package", part.distribution, *(f"--extra={extra}" for extra in part.extras)]
    return _output([*command, *what, "--format", "requirements-txt"], project)


def install_wheels(
    part: PythonPart, platform: Platform, requirements: str, project: Path, cache: Cache
) -> Path:
    """Return a folder with what is kept of all wheels for the platform, cached by these inputs."""
    wanted = without_distributions(requirements, part.without)
    key = key_of(FORMAT, part.model_dump(mode="json"), str(platform), PYTHON_VERSION, wanted)
    if (known := cache.tree("wheels", key)) is not None:
        return known
    with cache.new_tree("wheels", key) as root:
        installed = root.parent / "installed"
        listing = root.parent / "requirements.txt"
        listing.write_text(wanted)
        command = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
        ]
        target = ["--target", str(installed), "--python-version", PYTHON_VERSION]
        _output(
            [*command, *target, "--python-platform", _UV_PLATFORMS[platform], "-r", str(listing)], project
        )
        for path in _kept(installed, part):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (installed / path).rename(root / path)
            strip_library(root / path)
    return cache.folder("wheels", key)


def without_distributions(requirements: str, excluded: Sequence[str]) -> str:
    """Drop whole entries (a requirement with its hash lines) from a requirements file."""
    entries = re.split(r"\n(?=\S)", requirements.strip())
    names = (re.match(r"[A-Za-z0-9._-]+", entry) for entry in entries)
    kept = [
        entry for entry, name in zip(entries, names, strict=True) if name and name[0].lower() not in excluded
    ]
    return "\n".join(kept) + "\n"


def copy_source(part: PythonPart, project: Path, target: Path) -> str:
    """Copy our own package and its metadata into the folder; returns the version.

    The distribution is pure Python, so that copying is all that a build would do.
    """
    source = project / part.source
    shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for candidate in (project, *(project / parent for parent in part.source.parents)):
        manifest = candidate / "pyproject.toml"
        declared = tomllib.loads(manifest.read_text()).get("project", {}) if manifest.exists() else {}
        if declared.get("name") == part.distribution:
            version = str(declared["version"])
            metadata = target / f"{part.distribution.replace('-', '_')}-{version}.dist-info" / "METADATA"
            metadata.parent.mkdir()
            metadata.write_text(f"Metadata-Version: 2.1\nName: {part.distribution}\nVersion: {version}\n")
            return version
    raise WheelsUnavailable(f"No pyproject.toml above {part.source} declares {part.distribution}.")


def _kept(installed: Path, part: PythonPart) -> list[str]:
    files = (path for path in sorted(installed.rglob("*")) if path.is_file())
    relative = (path.relative_to(installed).as_posix() for path in files)
    return [path for path in relative if not _DROPPED.match(path) and part.keeps(path)]


def _output(command: Sequence[str], project: Path) -> str:
    environment = {**os.environ, "UV_NO_PROGRESS": "1"}
    done = subprocess.run(
        command,
        check=False,
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        raise WheelsUnavailable(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
