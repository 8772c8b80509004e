"""Removing images from registries in the background: a few models at a time, one image after the other.

What is to go is decided anew in each pass (`core.garbage`) and looked up before each image, so an image that
is needed again is spared as long as its turn has not come. Nothing is remembered that the registry does not
hold: after a restart what is gone is found to be gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.adapters.registries import Credentials, SecretMissing, read_credentials
from edgemodel_operator.api.edgemodel_status import VariantImage
from edgemodel_operator.core.garbage import RemovalError
from edgemodel_operator.core.world import Model, Sweep

log = logging.getLogger(__name__)

FIRST_RETRY = timedelta(seconds=10)
LONGEST_RETRY = timedelta(hours=1)
"""What a person must mend is tried again this often too, since nobody tells us that it was mended."""
SWEEP_SECONDS = 600.0

Wake = Callable[[str, str], None]


class Remover(Protocol):
    """Removes images."""

    async def remove(self, image: VariantImage, credentials: Credentials) -> bool:
        """Remove an image; False if it turned out not to be ours. Raises RemovalError."""
        ...


@dataclass
class _Run:
    model: Model
    wanted: tuple[VariantImage, ...] = ()
    state: Sweep = field(default_factory=Sweep)
    retry_at: datetime | None = None
    task: asyncio.Task[None] | None = None


class ImageSweeper:
    """Removes the images that models do not need any more."""

    def __init__(
        self,
        cluster: Cluster,
        remover: Remover,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime],
        wake: Wake,
        concurrency: int = 2,
    ) -> None:
        self._cluster = cluster
        self._remover = remover
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._gate = asyncio.Semaphore(concurrency)
        self._runs: dict[tuple[str, str], _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def state(self, model: Model) -> Sweep:
        """Say how it goes; what the status has forgotten already is forgotten here too."""
        run = self._runs.get((model.namespace, model.name))
        if run is None:
            return Sweep()
        recorded = {item.image for item in model.status.retained_images}
        run.state = replace(run.state, gone=run.state.gone & recorded)
        return run.state

    def want(self, model: Model, images: tuple[VariantImage, ...]) -> None:
        """Remove these images of a model and no others; a failed try is repeated after a pause."""
        key = (model.namespace, model.name)
        run = self._runs.get(key)
        if run is None:
            if not images:
                return
            run = self._runs[key] = _Run(model)
        if model.generation != run.model.generation:
            run.retry_at = None  # whoever changed the spec may have mended it
        run.model, run.wanted = model, images
        if not images:
            # Nothing is in the way any more, whether somebody else removed it or it is needed again.
            run.state, run.retry_at = Sweep(gone=run.state.gone), None
            return
        busy = run.task is not None and not run.task.done()
        if not busy and (run.retry_at is None or self._clock() >= run.retry_at):
            run.task = asyncio.create_task(self._sweep(run), name=f"sweep {model.namespace}/{model.name}")
            self._tasks.add(run.task)
            run.task.add_done_callback(self._tasks.discard)

    def forget(self, namespace: str, name: str) -> None:
        """Stop working for a model that does not exist any more."""
        run = self._runs.pop((namespace, name), None)
        if run is not None and run.task is not None:
            run.task.cancel()

    async def close(self) -> None:
        """Stop all of it, and wait until it has ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep(self, run: _Run) -> None:
        try:
            async with self._gate, asyncio.timeout(SWEEP_SECONDS):
                await self._remove_all(run)
        except RemovalError as error:
            self._fail(run, error)
        except SecretMissing as error:
            message = f"images stay in their registry: {error}"
            self._fail(run, RemovalError(error.reason, message, is_final=True))
        except (KubeError, TimeoutError) as error:
            message = f"images are not removed yet: {str(error) or 'it takes too long'}"
            self._fail(run, RemovalError("Interrupted", message))
        except Exception as error:
            log.exception("removing images failed unexpectedly")
            self._fail(run, RemovalError("InternalError", f"{type(error).__name__}: {error}"))
        else:
            run.state, run.retry_at = Sweep(gone=run.state.gone), None
        self._wake(run.model.namespace, run.model.name)

    async def _remove_all(self, run: _Run) -> None:
        credentials = await self._credentials(run.model)
        failure: RemovalError | None = None
        tried: set[str] = set()
        while image := next((item for item in run.wanted if item.image not in tried | run.state.gone), None):
            tried.add(image.image)
            try:
                was_ours = await self._remover.remove(image, credentials)
            except RemovalError as error:
                self._metrics.image_removals.labels("failed").inc()
                if error.stops:
                    raise
                failure = error
                continue
            run.state = replace(run.state, gone=run.state.gone | {image.image})
            self._metrics.image_removals.labels("removed" if was_ours else "left").inc()
            log.info("image %s", "removed" if was_ours else "left", extra={"image": image.image})
        if failure is not None:
            raise failure

    async def _credentials(self, model: Model) -> Credentials:
        image = model.spec.image
        names = [secret.name for secret in image.pull_secrets]
        if image.push_secret is not None:
            names.append(image.push_secret.name)
        return await read_credentials(self._cluster, model.namespace, names)

    def _fail(self, run: _Run, error: RemovalError) -> None:
        failures = run.state.failures + 1
        pause = LONGEST_RETRY if error.is_final else FIRST_RETRY * 2 ** min(failures - 1, 12)
        run.retry_at = self._clock() + min(pause, LONGEST_RETRY)
        run.state = replace(
            run.state,
            reason=error.reason,
            message=str(error),
            failures=failures,
            is_final=error.is_final,
        )
        log.warning("images could not be removed", extra={"model": run.model.name, "reason": error.reason})
