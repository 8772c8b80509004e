"""Supplies: images being made and signed in the background, by build key.

A supply is idempotent: after a restart the same job finds its image under its build key and its signatures
in place. So nothing of it is remembered anywhere but in the registry. And what the registry loses later, the
same job makes again: until that has an end the image counts as signed, and its verdict says what is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from prometheus_client import Histogram

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.core.pins import is_pinned
from edgemodel_operator.core.supply import BuildAccess, BuiltImage, SupplyError, SupplyJob
from edgemodel_operator.core.world import Supply, SupplyStage, SupplyStep
from edgemodel_operator.reconcile.build_access import read_access
from edgemodel_operator.reconcile.fair_gate import FairGate
from edgemodel_operator.reconcile.ports import Builder, Credentials, Signer

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0
PERSON_RETRY_SECONDS = 30.0
"""What a person must mend is looked at again this often, since nobody tells us that it was mended."""

LOST_RETRY_SECONDS = 300.0
"""A signed image that is not trusted is looked for this often, and made again if it is not there: what it
lacks may as well be a policy, which no build brings."""

PROGRESS_SECONDS = 5.0
"""A step that goes on for long is told of this often: each time is a write to the API server."""

WAITING = "waiting for a free builder"

Wake = Callable[[str, str], None]
"""Called with namespace and name of the model when its supply has got on."""


@dataclass
class _Run:
    job: SupplyJob
    state: Supply
    task: asyncio.Task[None] | None = None
    failures: int = 0
    told_at: float = 0.0
    models: set[tuple[str, str]] = field(default_factory=set)
    after: frozenset[asyncio.Task[None]] = frozenset()
    """What must have ended before this begins: it was cancelled, and its Job has the same name."""

    def is_busy(self) -> bool:
        """Tell whether something is under way."""
        return self.task is not None and not self.task.done()


class Supplies:
    """Makes and signs images, a bounded number at once."""

    def __init__(  # noqa: PLR0913 - it joins all that makes an image
        self,
        cluster: Cluster,
        builder: Builder,
        signer: Signer,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime],
        wake: Wake,
        concurrency: int,
        job_concurrency: int = 1,
    ) -> None:
        self._cluster = cluster
        self._builder = builder
        self._signer = signer
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        # A build that waits for a Job takes hardly anything of us: it must not hold up those that run here.
        self._here = FairGate(concurrency, self._is_shared)
        self._in_jobs = FairGate(job_concurrency, self._is_shared)
        self._runs: dict[tuple[str, str, str], _Run] = {}
        self._models: set[tuple[str, str]] = set()
        """Namespace and name of all that want images, also of those that have theirs."""
        self._tasks: set[asyncio.Task[None]] = set()

    def build_key(self, job: SupplyJob) -> str:
        """Give the build key of a job."""
        return self._builder.build_key(job)

    def state(self, job: SupplyJob) -> Supply:
        """Give the state of a job."""
        run = self._runs.get(self._identity(job))
        if run is None:
            return Supply(SupplyStage.MISSING, build_key=self.build_key(job))
        return run.state

    def start(self, job: SupplyJob) -> None:
        """Start a job unless it runs; one whose image was signed before makes what is lost of that."""
        identity = self._identity(job)
        run = self._runs.get(identity)
        if run is not None and run.is_busy():
            return
        key = self.build_key(job)
        if run is None:
            run = self._runs[identity] = _Run(job, Supply(SupplyStage.RUNNING, build_key=key))
        run.job = job
        if run.state.stage is SupplyStage.SIGNED:
            run.state = replace(run.state, progress=WAITING)
        else:
            failed = run.state if run.state.stage is SupplyStage.FAILED else None
            run.state = Supply(SupplyStage.RUNNING, build_key=key, progress=WAITING, earlier=failed)
        run.models.add((job.namespace, job.model_name))
        run.task = asyncio.create_task(self._run(run), name=f"supply {job.model_name} {job.variant}")
        self._tasks.add(run.task)
        run.task.add_done_callback(self._tasks.discard)

    def retain(self, namespace: str, model: str, jobs: tuple[SupplyJob, ...]) -> None:
        """Cancel what was running for a model and is not wanted any more.

        What is wanted from another place, or with another Secret, begins anew: the key is the same, but what
        was slow or failed may be mended by it.
        """
        (self._models.add if jobs else self._models.discard)((namespace, model))
        wanted = {self._identity(job): job for job in jobs}
        for identity, run in list(self._runs.items()):
            if (namespace, model) not in run.models:
                continue
            job = wanted.get(identity)
            if job is None:
                self._drop(identity, (namespace, model))
            elif not run.job.builds_like(job) and (run.is_busy() or run.state.stage is SupplyStage.FAILED):
                self._begin_anew(identity, job)

    def _drop(self, identity: tuple[str, str, str], model: tuple[str, str]) -> None:
        run = self._runs[identity]
        run.models.discard(model)
        if not run.models:
            if run.task is not None:
                run.task.cancel()
            del self._runs[identity]

    def _begin_anew(self, identity: tuple[str, str, str], job: SupplyJob) -> None:
        old = self._runs[identity]
        after = old.after
        if old.task is not None:
            old.task.cancel()
            after |= {old.task}
        missing = Supply(SupplyStage.MISSING, build_key=old.state.build_key)
        self._runs[identity] = _Run(job, missing, models=old.models, after=after)

    async def close(self) -> None:
        """Stop all that is being made, and wait until it has ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_shared(self) -> bool:
        return len({namespace for namespace, _ in self._models}) > 1

    def _identity(self, job: SupplyJob) -> tuple[str, str, str]:
        return job.namespace, job.repository, self.build_key(job)

    async def _run(self, run: _Run) -> None:
        if run.after:
            await asyncio.wait(run.after)
            run.after = frozenset()
        try:
            gate = self._in_jobs if self._builder.has_jobs(run.job) else self._here
            async with gate.hold(run.job.namespace):
                await self._supply(run)
        except SupplyError as error:
            self._fail(run, error)
        except KubeError as error:
            self._fail(run, SupplyError(run.state.step, "KubernetesUnavailable", str(error)))
        except Exception as error:
            log.exception("supplying an image failed unexpectedly")
            self._fail(run, SupplyError(run.state.step, "InternalError", f"{type(error).__name__}: {error}"))
        for namespace, name in run.models:
            self._wake(namespace, name)

    async def _supply(self, run: _Run) -> None:
        access, push = await read_access(self._cluster, run.job)
        built = await self._find(run, push) or await self._build(run, access)
        self._progress(run, SupplyStep.SIGN, "the image is being signed")
        with _timed(self._metrics.signatures, "signed"):
            await self._signer.sign(built, push)
        run.failures = 0
        run.state = Supply(
            SupplyStage.SIGNED,
            step=SupplyStep.SIGN,
            build_key=built.build_key,
            image=built.image,
            platforms=built.platforms,
            report=built.report,
            retry_at=self._clock() + timedelta(seconds=LOST_RETRY_SECONDS),
        )

    async def _find(self, run: _Run, credentials: Credentials) -> BuiltImage | None:
        """Look for what was built and signed before: here, by another site, or before a restart."""
        job = run.job
        if not is_pinned(job.digests):
            return None
        self._progress(run, SupplyStep.PREPARE, "looking for an image under the build key")
        begun = time.monotonic()
        found = await self._signer.find(job.repository, run.state.build_key, credentials)
        if found is None:
            return None
        self._metrics.builds.labels("reused").observe(time.monotonic() - begun)
        files = tuple(ModelFile(name="", sha256=digest) for digest in job.digests)
        return replace(found, report=found.report.model_copy(update={"files": files}))

    async def _build(self, run: _Run, access: BuildAccess) -> BuiltImage:
        with _timed(self._metrics.builds, "built"):
            return await self._builder.build(run.job, access, lambda *step: self._progress(run, *step))

    def _progress(self, run: _Run, step: SupplyStep, text: str) -> None:
        moved = step is not run.state.step
        run.state = replace(run.state, step=step, progress=text)
        now = time.monotonic()
        if moved or now - run.told_at >= PROGRESS_SECONDS:
            run.told_at = now
            for namespace, name in run.models:
                self._wake(namespace, name)

    def _fail(self, run: _Run, error: SupplyError) -> None:
        run.failures += 1
        pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(run.failures - 1, 8))
        if error.needs_person:
            pause = max(pause, PERSON_RETRY_SECONDS)
        pause = max(pause, error.retry_after or 0.0)
        run.state = Supply(
            SupplyStage.FAILED,
            step=error.step,
            build_key=run.state.build_key,
            reason=error.reason,
            message=str(error),
            retry_at=self._clock() + timedelta(seconds=pause),
            needs_person=error.needs_person,
        )
        log.warning("supply failed", extra={"model": run.job.model_name, "reason": error.reason})


@contextmanager
def _timed(histogram: Histogram, result: str) -> Iterator[None]:
    """Observe how long the block takes (seconds), under `result` or under `failed`."""
    begun = time.monotonic()
    try:
        yield
    except SupplyError:
        histogram.labels("failed").observe(time.monotonic() - begun)
        raise
    histogram.labels(result).observe(time.monotonic() - begun)
