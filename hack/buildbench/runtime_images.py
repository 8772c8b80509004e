"""The images that everybody builds on, in the registry of the run, and their parts for Dockerfiles."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import zstandard

from bench.machine import BenchError
from buildbench.meter import Cost, meter
from edgemodel_operator.oci.descriptor import Platform
from imagebuild.__main__ import PROJECT, build, parse_options, project_version
from imagebuild.cache import default_cache
from imagebuild.locked import MACHINES, read_lock
from imagebuild.recipe import PythonPart, load_recipes

BASE, RUNTIME = "base", "onnxruntime-cpu"
_REPOSITORY = "runtime-onnxruntime-cpu"
_PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))
_PIP = "pip==25.3"
_NEVER_BUILT = ("bytecode", "layers", "tmp", "wheels")
"""What a cache that was never used for building lacks; Debian's packages are downloads."""


@dataclass(frozen=True)
class Published:
    """The base and the runtime image in a registry."""

    prefix: str
    """`host/path`."""
    runtime: str
    """By digest."""

    @property
    def base_tag(self) -> str:
        """The base by its tag; `-linux-amd64` and so on name its platforms."""
        return f"{self.prefix}/{BASE}:{project_version(PROJECT)}"

    @property
    def runtime_tag(self) -> str:
        """The runtime image by its tag."""
        return f"{self.prefix}/{_REPOSITORY}:{project_version(PROJECT)}"


def publish(prefix: str, *names: str, cache: Path | None = None) -> tuple[Cost, dict[str, str]]:
    """Build images and push them; gives what that cost, and each by its digest."""
    where = [f"--cache={cache}"] if cache else []
    argv = [sys.executable, "-m", "imagebuild", "--only", ",".join(names), "--push", prefix, *where]
    cost, said = meter(argv, env={"PYTHONPATH": str(PROJECT / "hack")})
    locked: dict[str, str] = json.loads(said)
    return cost, locked


def publish_runtime(prefix: str) -> Published:
    """Have base and runtime image in the registry."""
    _, locked = publish(prefix, BASE, RUNTIME)
    return Published(prefix, locked[_REPOSITORY])


def publish_cold(prefix: str, cache: Path) -> tuple[Cost, Published]:
    """Build the runtime image with a cache that holds its base and downloads, nothing else."""
    used = default_cache().root
    for kind in used.iterdir():
        if kind.is_dir() and kind.name not in _NEVER_BUILT:
            shutil.copytree(kind, cache / kind.name, copy_function=os.link)
    publish(prefix, BASE, cache=cache)
    cost, locked = publish(prefix, RUNTIME, cache=cache)
    return cost, Published(prefix, locked[_REPOSITORY])


def unpack_runtime(context: Path) -> None:
    """Put the files that the runtime image has above the base into `runtime/<architecture>` of a context."""
    images = {image.recipe.name: image for image in build(parse_options([f"--only={BASE},{RUNTIME}"]))}
    for platform in _PLATFORMS:
        stack = images[RUNTIME].layers[platform][len(images[BASE].layers[platform]) :]
        target = context / "runtime" / platform.architecture
        for stored in stack:
            with (
                stored.blob.open("rb") as packed,
                zstandard.ZstdDecompressor().stream_reader(packed) as plain,
                tarfile.open(fileobj=plain, mode="r|") as archive,
            ):
                archive.extractall(target, filter="fully_trusted")  # noqa: S202 - our own layers


def download_wheels(context: Path) -> None:
    """Put pip, the wheels of the runtime for both platforms, and the server into a context."""
    part = load_recipes(PROJECT / "images")[RUNTIME].python
    if not isinstance(part, PythonPart):
        raise BenchError(f"the recipe {RUNTIME} installs no wheels")
    lock, wheels = read_lock(PROJECT, part), context / "wheels"
    wheels.mkdir()
    pip = [
        "uv",
        "tool",
        "run",
        "--from",
        _PIP,
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    listing = ""
    for platform in _PLATFORMS:
        machine = MACHINES[platform.architecture]
        newest = int(part.glibc.partition(".")[2])
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(17, newest + 1)]
        listing = "".join(requirement.write() for requirement in lock.for_platform(platform, part.glibc))
        file = context / f"requirements-{platform.architecture}.txt"
        file.write_text(listing)
        meter([
            *pip, f"--dest={wheels}", "--python-version=3.11", "--implementation=cp", "--abi=cp311",
            "--abi=abi3", "--abi=none", *(f"--platform={tag}" for tag in (*tags, f"manylinux2014_{machine}")),
            "--require-hashes", "-r", str(file),
        ])  # fmt: skip
    # Which version pip takes is said by the markers; of the hashes each platform has others.
    plain = [line.removesuffix("\\").strip() for line in listing.splitlines() if not line.startswith(" ")]
    (wheels / "requirements.txt").write_text("\n".join(plain) + "\n")
    meter([*pip, f"--dest={context}", _PIP])
    next(context.glob("pip-*.whl")).rename(wheels / "pip.whl")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / part.source, context / "server" / part.source.name, ignore=ignored)
