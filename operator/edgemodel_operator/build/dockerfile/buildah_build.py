"""Building the runtime image of this machine's platform from a Dockerfile, with Buildah, as part of a Job."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.dockerfile import buildah
from edgemodel_operator.build.dockerfile.adopted import Adoption, adopt_image
from edgemodel_operator.build.dockerfile.build_log import BuildLog
from edgemodel_operator.build.dockerfile.context import BuildContext, lay_out_context, open_context
from edgemodel_operator.build.dockerfile.inputs import DockerfileBuild, PublishedRuntime
from edgemodel_operator.build.dockerfile.instructions import InvalidDockerfile
from edgemodel_operator.build.dockerfile.saved_image import open_saved_image
from edgemodel_operator.build.environment import child_environment
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.copy import Endpoint, copy_image
from edgemodel_operator.oci.image import InvalidImage
from edgemodel_operator.oci.image_layout import LayoutStore, parse_location
from edgemodel_operator.settings import BuildahSettings, NetworkMode

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_READ_BYTES = 64 * 1024
_STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+/\d+: (.*)$")
_ONE_USER = re.compile(r"error setting [GU]ID: invalid argument|chown .*: invalid argument")


async def build_runtime_here(
    build: DockerfileBuild, runtime: PublishedRuntime, settings: BuildahSettings, work: Path
) -> RuntimeChild:
    """Give the runtime image of the platform of this machine; its new blobs lie in `work`.

    Cancelling ends Buildah with all that it started. Raises BuildError, RegistryError, OSError.
    """
    child = _child_for_here(runtime)
    place = _Place(work / "dockerfile")
    try:
        context = await asyncio.to_thread(open_context, build.files, build.dockerfile)
        await asyncio.to_thread(lay_out_context, context, place.context)
        source = Endpoint(runtime.store, runtime.reference.with_digest(child.digest))
        target = parse_location(f"oci:{place.base}:{buildah.BASE_TAG}")
        await copy_image(source, Endpoint(LayoutStore(), target))
        await _run(build, context, place, network=settings.network is NetworkMode.DEFAULT)
        adoption = Adoption(child, place.blobs, build.compressor, settings.max_image_bytes)
        return await asyncio.to_thread(_take, place, adoption)
    except (InvalidDockerfile, InvalidImage) as error:
        raise fail(Reason.DOCKERFILE_INVALID, str(error)) from error


@dataclass(frozen=True)
class _Place:
    """The folders of one build."""

    folder: Path

    @property
    def context(self) -> Path:
        return self.folder / "context"

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"


class _Watch:
    """Follows what Buildah prints: to the log, and for the instruction that it is at."""

    def __init__(self, build: DockerfileBuild) -> None:
        self.instruction = ""
        self.log = BuildLog(build.arguments, self._listen)
        self._on_line = build.on_line

    def _listen(self, line: str) -> None:
        if step := _STEP.match(line):
            self.instruction = step[1]
        self._on_line(line)


def _child_for_here(runtime: PublishedRuntime) -> RuntimeChild:
    here = _ARCHITECTURES.get(platform.machine(), platform.machine())
    for child in runtime.children:
        if child.platform.architecture == here:
            return child
    raise fail(
        Reason.PLATFORM_MISSING, f"The runtime image {runtime.reference} is not there for linux/{here}."
    )


async def _run(build: DockerfileBuild, context: BuildContext, place: _Place, *, network: bool) -> None:
    watch = _Watch(build)
    process = await asyncio.create_subprocess_exec(
        *_command(build, place, network=network),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=child_environment(),
        start_new_session=True,
    )
    if process.stdout is None:
        raise ValueError("the process was started with a pipe")
    try:
        while chunk := await process.stdout.read(_READ_BYTES):
            watch.log.feed(chunk.decode(errors="replace"))
        watch.log.end_line()
        status = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if status == buildah.CANNOT_ISOLATE:
        raise fail(Reason.ENGINE_UNSUITABLE, watch.log.last_lines)
    if status != 0:
        raise _failed(context, watch, status)


def _command(build: DockerfileBuild, place: _Place, *, network: bool) -> list[str]:
    folders = {"--context": place.context, "--base": place.base, "--out": place.out, "--state": place.state}
    return [
        sys.executable,
        "-m",
        buildah.__name__,
        *(word for option, folder in folders.items() for word in (option, str(folder))),
        f"--dockerfile={build.dockerfile}",
        *(f"--argument={name}={value}" for name, value in sorted(build.arguments.items())),
        *(("--network",) if network else ()),
    ]


def _failed(context: BuildContext, watch: _Watch, status: int) -> BuildError:
    said = watch.log.last_lines
    lines = [
        one.first_line
        for one in context.instructions
        if f"{one.keyword} {one.arguments}" == watch.instruction
    ]
    number = f"line {lines[0]} " if len(lines) == 1 else ""
    where = f" in {number}({watch.instruction[:200]})" if watch.instruction else ""
    hint = (
        " In this cluster root is the only user of a build: write `USER 0` before RUN and give files to "
        "nobody else, or set `builds.buildah.userNamespaces`."
        if _ONE_USER.search(said)
        else ""
    )
    return fail(
        Reason.DOCKERFILE_FAILED,
        f"The Dockerfile failed{where} with status {status}.{hint} Its last lines: {said}",
    )


def _take(place: _Place, adoption: Adoption) -> RuntimeChild:
    with open_saved_image(place.out) as saved:
        return adopt_image(saved, adoption)
