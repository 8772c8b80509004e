"""Building runtime images from a Dockerfile, each by the Docker Engine of its architecture."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.dockerfile.adopted import Adoption, adopt_image
from edgemodel_operator.build.dockerfile.base_archive import write_base_archive
from edgemodel_operator.build.dockerfile.build_log import BuildLog
from edgemodel_operator.build.dockerfile.context import BuildContext, open_context, write_context
from edgemodel_operator.build.dockerfile.engine import Engine, EngineBuild, Ownership
from edgemodel_operator.build.dockerfile.engine_connection import connected
from edgemodel_operator.build.dockerfile.inputs import RUNTIME_ARGUMENT, DockerfileBuild, PublishedRuntime
from edgemodel_operator.build.dockerfile.instructions import InvalidDockerfile, labelled_steps
from edgemodel_operator.build.dockerfile.saved_image import open_saved_image
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.image import InvalidImage
from edgemodel_operator.settings import DockerSettings

_PATIENCE_SECONDS = 30
"""How long a build that was ended is waited for, and an engine that has yet to let go of it."""


async def build_runtime(
    build: DockerfileBuild, runtime: PublishedRuntime, settings: DockerSettings, work: Path
) -> tuple[RuntimeChild, ...]:
    """Give the runtime image of every platform of `runtime`, in its order; their new blobs lie in `work`.

    The engines work at the same time. Cancelling ends their builds; in every case nothing of ours stays on
    them. Raises BuildError, RegistryError, OSError.
    """
    try:
        context = await asyncio.to_thread(open_context, build.files, build.dockerfile)
    except InvalidDockerfile as error:
        raise fail(Reason.DOCKERFILE_INVALID, str(error)) from error
    jobs = [
        _PlatformBuild(build, context, child, settings, work / f"dockerfile-{number}")
        for number, child in enumerate(runtime.children)
    ]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job.run(runtime)) for job in jobs]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return tuple(task.result() for task in tasks)


@dataclass(frozen=True)
class _PlatformBuild:
    """The build of one platform, in a folder of its own."""

    build: DockerfileBuild
    context: BuildContext
    child: RuntimeChild
    settings: DockerSettings
    folder: Path

    async def run(self, runtime: PublishedRuntime) -> RuntimeChild:
        ownership = Ownership.from_now(
            f"{self.build.owner}-{self.child.platform.architecture}", self.settings.timeout_seconds
        )
        with ExitStack() as stack:
            connection = connected(self.settings, self.child.platform)
            client, url = await asyncio.to_thread(stack.enter_context, connection)
            engine = Engine(client, self.child.platform, self.settings, url)
            await asyncio.to_thread(engine.check)
            await asyncio.to_thread(engine.remove_leftovers, ownership)
            base = await write_base_archive(
                runtime.store, runtime.reference, self.child, ownership.base_tag, self.folder
            )
            try:
                await asyncio.to_thread(engine.load_base, base)
                await asyncio.to_thread(base.unlink)
                image = await self._build(engine, ownership)
                return await asyncio.to_thread(self._take, engine, image)
            finally:
                # Shielded: a cancelled build must not leave its images behind.
                with suppress(BuildError):
                    await asyncio.shield(
                        asyncio.to_thread(engine.remove_leftovers, ownership, patience=_PATIENCE_SECONDS)
                    )

    async def _build(self, engine: Engine, ownership: Ownership) -> str:
        path = self.folder / "context.tar"
        await asyncio.to_thread(self._write_context, path, ownership)
        build = EngineBuild(
            context=path,
            arguments={**self.build.arguments, RUNTIME_ARGUMENT: ownership.base_tag},
            steps=labelled_steps(self.context.instructions),
            log=BuildLog(self.build.arguments, self._tell),
        )
        running = asyncio.ensure_future(asyncio.to_thread(engine.build, build))
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                return await asyncio.shield(running)
        except TimeoutError as error:
            raise fail(
                Reason.BUILD_TIMEOUT,
                f"The Dockerfile took more than {self.settings.timeout_seconds} seconds for "
                f"{self.child.platform}. Its last lines: {build.log.last_lines}",
            ) from error
        finally:
            if not running.done():
                await asyncio.shield(asyncio.to_thread(engine.stop, ownership))
                await asyncio.wait([running], timeout=_PATIENCE_SECONDS)
            if running.done() and not running.cancelled():
                running.exception()  # it was told by us, or it is not worth telling

    def _write_context(self, path: Path, ownership: Ownership) -> None:
        with path.open("wb") as out:
            write_context(self.context, ownership.labels, out)

    def _take(self, engine: Engine, image: str) -> RuntimeChild:
        path = self.folder / "saved.tar"
        adoption = Adoption(
            self.child, self.folder / "blobs", self.build.compressor, self.settings.max_image_bytes
        )
        engine.save(image, path)
        try:
            with open_saved_image(path) as saved:
                return adopt_image(saved, adoption)
        except InvalidImage as error:
            raise fail(Reason.DOCKERFILE_INVALID, str(error)) from error
        finally:
            path.unlink()

    def _tell(self, line: str) -> None:
        self.build.on_line(f"{self.child.platform}: {line}")
