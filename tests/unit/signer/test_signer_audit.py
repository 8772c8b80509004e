"""What the signer tells the cluster of: signatures, attestations, refusals, and what found no room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.signer import audit
from edgemodel_operator.signer.audit import Audit
from edgemodel_operator.signer.callers import Caller
from edgemodel_operator.signer.messages import Claim, Kind
from edgemodel_operator.signer.metrics import SignerMetrics
from support.kube_api import KubeApiServer, kube_api_server

CALLER = Caller("system:serviceaccount:edgemodel-system:edgemodel-operator", "edgemodel-operator-0", "u-1")
EVENTS = "/api/v1/namespaces/edgemodel-system/events"
DIGEST = "sha256:" + "a" * 64
SLSA = "https://slsa.dev/provenance/v1"


def claim(kind: Kind = Kind.SIGNATURE, predicate_type: str = "") -> Claim:
    return Claim(kind, "registry.plant-a.local/models/line", DIGEST, predicate_type)


@pytest.fixture
async def kube() -> AsyncIterator[tuple[KubeApiServer, KubeApi]]:
    async with kube_api_server() as pair:
        yield pair


async def told(trail: Audit, server: KubeApiServer, calls: int) -> list[dict[str, Any]]:
    """Let the trail write until the API server was called so often, and give the events."""
    task = asyncio.create_task(trail.run())
    async with asyncio.timeout(20):
        while len(server.calls) < calls:
            await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return [item for path, item in server.objects.items() if path.startswith(EVENTS)]


def dropped(metrics: SignerMetrics) -> float | None:
    return metrics.registry.get_sample_value("edgemodel_signer_events_dropped_total")


async def test_signatures_attestations_and_refusals_leave_an_event_each(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    metrics = SignerMetrics()
    trail = Audit(api, "edgemodel-system", "edgemodel-signer-0", metrics.events_dropped)
    trail.signed(CALLER, claim(), "sha256:key")
    trail.signed(CALLER, claim(Kind.PROVENANCE, SLSA), "sha256:key")
    trail.refused(CALLER, claim(), "OtherRepository", "the repository is not listed")
    trail.refused(None, None, "NotAuthenticated", "send a token")
    trail.refused(None, None, "NotAuthenticated", "send a token")  # the same event
    events = await told(trail, server, 5)
    assert [(one["type"], one["reason"], one["involvedObject"]["name"]) for one in events] == [
        ("Normal", "ImageSigned", "edgemodel-operator"),
        ("Normal", "ImageAttested", "edgemodel-operator"),
        ("Warning", "SigningRefused", "edgemodel-operator"),
        ("Warning", "SigningRefused", "edgemodel-signer"),
    ]
    assert f"attested {SLSA} about registry.plant-a.local/models/line@{DIGEST}" in events[1]["message"]
    assert events[2]["message"].endswith(f"{DIGEST} (OtherRepository): the repository is not listed")
    assert dropped(metrics) == 0


async def test_events_that_find_no_room_or_are_not_taken_are_counted(
    kube: tuple[KubeApiServer, KubeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, api = kube
    monkeypatch.setattr(audit, "MAX_WAITING_EVENTS", 1)
    server.refuse["POST", EVENTS] = 403
    metrics = SignerMetrics()
    trail = Audit(api, "edgemodel-system", "edgemodel-signer-0", metrics.events_dropped)
    trail.signed(CALLER, claim(), "sha256:key")
    trail.refused(CALLER, claim(), "OtherRepository", "the repository is not listed")
    assert dropped(metrics) == 1
    task = asyncio.create_task(trail.run())
    async with asyncio.timeout(20):
        while dropped(metrics) != 2:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not any(path.startswith(EVENTS) for path in server.objects)
