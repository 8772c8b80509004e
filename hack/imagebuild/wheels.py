"""A workspace distribution with its locked dependencies, installed for another platform by uv.

Only wheels, only with the hashes of the committed lock; nothing is built and nothing of the host is executed.
uv evaluates markers for the target platform (pip does not).
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from email import message_from_bytes
from pathlib import Path

from packageurl import PackageURL
from packaging.utils import canonicalize_name

from edgemodel_operator.build.origin.packages import Package
from edgemodel_operator.oci.descriptor import Platform

from .cache import Cache, key_of
from .elf import strip_library
from .licences import wheel_licence
from .locked import MACHINES, PYTHON_VERSION, Lock, Requirement, WheelsUnavailable, run_uv
from .packaged import Packaged, files_folder, read_packaged, write_packages
from .recipe import PythonPart
from .stand_ins import write_stand_ins

FORMAT = 3
"""Part of the cache key: raise it when the result for the same inputs changes."""

_DROPPED = re.compile(
    r"(?:bin/|share/|include/|.*/__pycache__/|.*/tests/|.*\.(?:c|cc|cpp|h|hpp|pxd|pyi|pyx)$|[^/]+\.dist-info/"
    r"(?:RECORD|INSTALLER|REQUESTED|direct_url\.json|uv_cache\.json|entry_points\.txt|top_level\.txt|WHEEL)$"
    r"|[^/]*\.lock$)"
)
"""What no image needs of any wheel: programs, C sources, stubs, tests, and what installers leave behind."""


def install_wheels(part: PythonPart, platform: Platform, lock: Lock, cache: Cache) -> Packaged:
    """Return a folder with what is kept of all wheels for the platform, cached by these inputs."""
    wanted = lock.for_platform(platform, part.glibc)
    listing = "".join(requirement.write() for requirement in wanted)
    key = key_of(FORMAT, part.model_dump(mode="json"), str(platform), PYTHON_VERSION, listing)
    if (known := cache.tree("wheels", key)) is not None:
        return read_packaged(known)
    with cache.new_tree("wheels", key) as tree:
        root, installed = files_folder(tree), tree.parent / "installed"
        _install(listing, installed, platform, part.glibc)
        write_packages(tree, _describe(installed, wanted))
        write_stand_ins(installed, part.stand_ins)
        for path in _kept(installed, part):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (installed / path).rename(root / path)
            strip_library(root / path)
    return read_packaged(cache.folder("wheels", key))


def _install(listing: str, target: Path, platform: Platform, glibc: str) -> None:
    """Unpack the wheels of a requirements file for another platform; nothing is resolved, built or run."""
    file = target.with_name("requirements.txt")
    file.write_text(listing)
    machine = f"{MACHINES[platform.architecture]}-manylinux_{glibc.replace('.', '_')}"
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    where = ["--target", str(target), "--python-version", PYTHON_VERSION, "--python-platform", machine]
    run_uv([*command, *where, "-r", str(file)], target.parent)


def _describe(installed: Path, wanted: Sequence[Requirement]) -> Iterator[Package]:
    """Say what each installed distribution is: uv checked that its wheel has the one hash it was given."""
    hashes = {(one.name, one.version): one.hashes for one in wanted}
    for file in sorted(installed.glob("*.dist-info/METADATA")):
        metadata = message_from_bytes(file.read_bytes())
        name, version = canonicalize_name(metadata["Name"]), metadata["Version"]
        of_wheel = hashes.get((name, version), ())
        if len(of_wheel) != 1:
            raise WheelsUnavailable(f"{name} {version} was installed, but the lock names no one wheel of it.")
        purl = PackageURL("pypi", None, name, version).to_string()
        yield Package(purl, of_wheel[0], wheel_licence(metadata))


def copy_source(part: PythonPart, project: Path, target: Path) -> Package:
    """Copy our own package and its metadata into the folder; returns what it is.

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
            purl = PackageURL("generic", None, part.distribution, version).to_string()
            return Package(purl, license=str(declared["license"]))
    raise WheelsUnavailable(f"No pyproject.toml above {part.source} declares {part.distribution}.")


def _kept(installed: Path, part: PythonPart) -> list[str]:
    files = (path for path in sorted(installed.rglob("*")) if path.is_file())
    relative = (path.relative_to(installed).as_posix() for path in files)
    return [path for path in relative if not _DROPPED.match(path) and part.keeps(path)]
