"""The committed lock of a distribution, and which of its wheels a platform takes.

We choose the wheel and hand its hash alone to uv, so that what is installed is what we say is installed.
Formats: requirements files with hashes (`uv export`), `uv.lock`, compatibility tags of wheels (PEP 425, 600).
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from edgemodel_operator.oci.descriptor import Platform

from .recipe import PythonPart

PYTHON_VERSION = "3.11"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""What the tags of wheels call an architecture."""

_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class WheelsUnavailable(RuntimeError):  # noqa: N818 - states a fact
    """uv could not provide the locked wheels; the message is uv's."""


@dataclass(frozen=True)
class Requirement:
    """A pinned distribution of `uv export`: `name==version ; marker`, and the hashes that it may have."""

    text: str
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The normalized name."""
        return canonicalize_name(re.split(r"[\s=\[;]", self.text, maxsplit=1)[0])

    @property
    def version(self) -> str:
        """The pinned version."""
        match = re.search(r"==\s*([^\s;]+)", self.text)
        return match[1] if match else ""

    def with_hashes(self, hashes: Sequence[str]) -> Requirement:
        """Return it with these hashes."""
        return Requirement(self.text, tuple(hashes))

    def write(self) -> str:
        """Return the entry of a requirements file."""
        return " \\\n".join([self.text, *(f"    --hash=sha256:{one}" for one in self.hashes)]) + "\n"


@dataclass(frozen=True)
class Lock:
    """What a distribution needs, with the file name of each wheel in the lock by its SHA-256."""

    requirements: tuple[Requirement, ...]
    wheels: Mapping[str, str]

    def for_platform(self, platform: Platform, glibc: str) -> tuple[Requirement, ...]:
        """Return the requirements, each with the one wheel that the platform takes.

        What has no wheel for it keeps all its hashes: its marker may exclude it, else uv refuses it.
        """
        tags = platform_tags(platform, glibc)
        return tuple(
            one.with_hashes(_best(one.hashes, self.wheels, tags) or one.hashes) for one in self.requirements
        )


def read_lock(project: Path, part: PythonPart) -> Lock:
    """Read what the recipe needs from its lock; nothing is resolved. Raises WheelsUnavailable."""
    command = ["uv", "export", "--frozen", "--no-dev", "--no-header", "--no-annotate", "--no-emit-local"]
    own = part.lock != Path()
    what = [] if own else ["--package", part.distribution, *(f"--extra={extra}" for extra in part.extras)]
    text = run_uv([*command, *what, "--format", "requirements-txt"], project / part.lock)
    wheels = dict(_wheel_names(tomllib.loads((project / part.lock / "uv.lock").read_text())))
    needed = (one for one in parse_requirements(text) if one.name not in part.without)
    return Lock(tuple(needed), wheels)


def parse_requirements(text: str) -> Iterator[Requirement]:
    """Read a requirements file of pinned distributions with hashes."""
    for entry in re.split(r"\n(?=[^\s#])", text.strip()):
        first = entry.partition("\n")[0].removesuffix("\\").strip()
        if first:
            yield Requirement(first, tuple(_HASH.findall(entry)))


def platform_tags(platform: Platform, glibc: str) -> tuple[Tag, ...]:
    """Return the tags of wheels that run on the platform, the best first; `glibc` as `2.36`."""
    machine = MACHINES[platform.architecture]
    newest = int(glibc.partition(".")[2])
    platforms: list[str] = []
    for minor in range(newest, 4, -1):
        platforms.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY:
            platforms.append(f"{_LEGACY[minor]}_{machine}")
    platforms.append(f"linux_{machine}")
    python = tuple(map(int, PYTHON_VERSION.split(".")))
    interpreter = f"cp{PYTHON_VERSION.replace('.', '')}"
    exact = cpython_tags(python, [interpreter], platforms)
    return (*exact, *compatible_tags(python, interpreter, platforms))


def run_uv(command: Sequence[str], folder: Path) -> str:
    """Run uv and return what it prints; raises WheelsUnavailable with its complaint."""
    done = subprocess.run(
        [*command, "--no-progress"],
        check=False,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    if done.returncode:
        raise WheelsUnavailable(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _wheel_names(lock: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for package in lock.get("package", ()):
        for wheel in package.get("wheels", ()):
            name = str(wheel.get("url") or wheel.get("path") or "").rpartition("/")[2]
            yield str(wheel["hash"]).removeprefix("sha256:"), name


def _best(hashes: Sequence[str], wheels: Mapping[str, str], tags: Sequence[Tag]) -> tuple[str, ...]:
    """Return the hash of the wheel that fits best; nothing if none does."""
    ranks = {tag: rank for rank, tag in enumerate(tags)}
    fitting = [
        (min(ranks[tag] for tag in has & ranks.keys()), name, one)
        for one in hashes
        if (name := wheels.get(one)) and (has := _tags_of(name)) & ranks.keys()
    ]
    return (min(fitting)[2],) if fitting else ()


def _tags_of(wheel: str) -> frozenset[Tag]:
    try:
        return parse_wheel_filename(wheel)[3]
    except InvalidWheelFilename:
        return frozenset()
