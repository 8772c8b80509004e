"""What happens inside the operator: an image found again by its key, and many models that come at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast

from cryptography.hazmat.primitives.asymmetric import ec

from bench.machine import BenchError
from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.image_signer import ImageSigner
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.adapters.registries import Registries
from edgemodel_operator.build.request import BuildResult
from edgemodel_operator.build.supplier import WorkerBuilder, built_image
from edgemodel_operator.core.supply import SupplyJob
from edgemodel_operator.core.world import Supply, SupplyStage
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.reconcile.supplies import Supplies
from edgemodel_operator.signing.keys import LocalKey, Signer

_CONCURRENCY = 2
"""As many builds at once as the operator's settings allow by default."""
_TICK_S = 0.005
_PATIENCE_S = 900.0


class _Keys:
    """A key in place of the program that holds them."""

    def __init__(self) -> None:
        self._key = LocalKey(ec.generate_private_key(ec.SECP256R1()))

    async def signers(self) -> tuple[Signer, ...]:
        """Give the key."""
        return (self._key,)


@asynccontextmanager
async def _signer(registry: str) -> AsyncIterator[ImageSigner]:
    async with new_session() as session:
        registries = Registries(session, (registry,))
        yield ImageSigner(_Keys(), registries)


async def find_again(registry: str, result: BuildResult, times: int) -> list[float]:
    """Sign an image, then find it by its key; gives how long each search took (seconds)."""
    image, build_key = result.image, result.build_key
    repository = image.partition("@")[0]
    async with _signer(registry) as signer:
        await signer.sign(built_image(result), {})
        took = []
        for _ in range(times):
            began = time.monotonic()
            found = await signer.find(repository, build_key, {})
            took.append(time.monotonic() - began)
            if found is None or found.image != image:
                raise BenchError(f"{image} was not found under its key")
        return took


async def build_all(registry: str, builder: WorkerBuilder, jobs: Sequence[SupplyJob]) -> dict[str, float]:
    """Have the operator's own supplies build and sign all at once.

    Gives the longest time for which its event loop did not turn (`longest_ms`), the longest for which it
    computed without a pause (`longest_cpu_ms`), and how long all took (`seconds`).
    """
    async with _signer(registry) as signer:
        ended = asyncio.Event()
        supplies = Supplies(
            cast("Cluster", None),  # no Secret is named, so that it is never asked
            builder,
            signer,
            Metrics(),
            clock=lambda: datetime.now(UTC),
            wake=lambda namespace, name: ended.set(),
            concurrency=_CONCURRENCY,
        )
        probe = _Probe()
        watching = asyncio.create_task(probe.run())
        began = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for job in jobs:
                    supplies.start(job)
                while not _all_signed([supplies.state(job) for job in jobs]):
                    ended.clear()
                    await ended.wait()
        finally:
            watching.cancel()
        return {
            "longest_ms": probe.longest_s * 1e3,
            "longest_cpu_ms": probe.longest_cpu_s * 1e3,
            "seconds": time.monotonic() - began,
        }


def _all_signed(states: Sequence[Supply]) -> bool:
    for state in states:
        if state.stage is SupplyStage.FAILED:
            raise BenchError(f"a build failed: {state.message}")
    return all(state.stage is SupplyStage.SIGNED for state in states)


class _Probe:
    """Wakes every few milliseconds and notes by how much it was late, and what the loop computed meanwhile.

    On a busy machine it is late also when the loop has nothing to do; what it computed tells the two apart.
    """

    def __init__(self) -> None:
        self.longest_s = self.longest_cpu_s = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            began, computed = time.monotonic(), time.thread_time()
            await asyncio.sleep(_TICK_S)
            self.longest_s = max(self.longest_s, time.monotonic() - began - _TICK_S)
            self.longest_cpu_s = max(self.longest_cpu_s, time.thread_time() - computed)
