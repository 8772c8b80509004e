"""Events tell people of refusals: once, within a budget, and never in the way of an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.admission.audit_trail import AuditTrail
from edgemodel_operator.admission.events import BURST, QUEUE, REFILL_S, REPEAT_S, EventRecorder, Occurrence
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.review import parse_review
from edgemodel_operator.admission.trust_objects import parse_change
from support.admission import (
    GOOD,
    HOST,
    NOW,
    UNSIGNED,
    StatedPolicies,
    exemption,
    make_judge,
    pod_spec,
    policy,
    review_of,
)
from support.kube_api import KubeApiServer, kube_api_server

DROPPED = "edgemodel_admission_events_dropped_total"


class Clock:
    """Seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A recorder with its API server."""

    def __init__(self, server: KubeApiServer, api: KubeApi) -> None:
        self.server = server
        self.clock = Clock()
        self.metrics = AdmissionMetrics()
        self.recorder = EventRecorder(api, "admission-1", self.metrics, clock=self.clock, now=lambda: NOW)
        self.trail = AuditTrail(self.recorder)

    async def events(self) -> list[dict[str, Any]]:
        """Give what reached the API server."""
        task = asyncio.create_task(self.recorder.run())
        await self.recorder.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return [one for path, one in self.server.objects.items() if "/events/" in path]

    def dropped(self) -> float:
        return self.metrics.registry.get_sample_value(DROPPED) or 0


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with kube_api_server() as (server, api):
        yield Site(server, api)


def occurrence(number: int = 1, namespace: str = "plant-a", **more: Any) -> Occurrence:
    values = {"reason": "ImageRefused", "message": "m", "repeats": f"image-{number}"} | more
    return Occurrence(kind="Namespace", name=namespace, namespace=namespace, **values)


async def test_the_same_is_said_once_in_a_while(site: Site) -> None:
    for _ in range(100):
        site.recorder.record(occurrence())
    assert len(await site.events()) == 1
    site.clock.now += REPEAT_S
    site.recorder.record(occurrence())
    assert len(await site.events()) == 2
    assert site.dropped() == 0


async def test_a_namespace_has_a_budget_and_takes_none_from_others(site: Site) -> None:
    for number in range(BURST + 5):
        site.recorder.record(occurrence(number))
    site.recorder.record(occurrence(namespace="plant-b"))
    assert len(await site.events()) == BURST + 1
    assert site.dropped() == 5
    site.clock.now += 2 * REFILL_S
    for number in range(100, 105):
        site.recorder.record(occurrence(number))
    assert len(await site.events()) == BURST + 3


async def test_a_full_queue_drops_and_nobody_waits(site: Site) -> None:
    for number in range(QUEUE + 3):
        site.recorder.record(occurrence(namespace=f"plant-{number}"))
    assert site.dropped() == 3


async def test_an_api_server_that_takes_no_events_stops_nothing(site: Site) -> None:
    site.server.refuse["POST", "/api/v1/namespaces/plant-a/"] = 403
    site.recorder.record(occurrence())
    site.recorder.record(occurrence(namespace="plant-b"))
    assert len(await site.events()) == 1
    assert site.dropped() == 1


async def judge(site: Site, document: dict[str, Any], **policy_spec: Any) -> None:
    stated = StatedPolicies((policy(**policy_spec),), exceptions=(exemption(f"{HOST}/models/excused"),))
    review = parse_review(document)
    site.trail.judged(await make_judge(stated).decide(review), review, "u-1")


async def test_a_refusal_is_told_in_the_namespace_with_who_what_and_why(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await judge(site, review_of(pod_spec(GOOD, UNSIGNED)))
    (event,) = await site.events()
    assert event["metadata"]["namespace"] == "plant-a"
    assert event["involvedObject"]["kind"] == "Namespace"
    assert event["involvedObject"]["namespace"] == "plant-a"
    assert event["related"]["name"] == "plant"
    assert (event["type"], event["reason"]) == ("Warning", "ImageRefused")
    assert event["message"].startswith(
        f"pods plant-a/line, asked for by kim: image {UNSIGNED} does not satisfy"
    )
    (record,) = caplog.records
    line = vars(record)
    assert (line["msg"], line["user"], line["object"], line["decision"]) == (
        "Denied",
        "kim",
        "pods plant-a/line",
        "deny",
    )
    good, bad = line["images"]
    assert (good["image"], good["policies"], good["by"]) == (GOOD, ["plant"], ["plant=sha256:aa"])
    assert (bad["image"], bad["reasons"], bad["by"]) == (UNSIGNED, ("Unsigned",), [])


async def test_an_admission_leaves_a_line_with_its_evidence_and_no_event(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await judge(site, review_of(pod_spec(GOOD)))
        await judge(site, review_of(pod_spec(f"{HOST}/models/excused@sha256:{'0' * 64}")))
        old = {"metadata": {}, "spec": pod_spec(GOOD)}
        await judge(site, review_of(pod_spec(GOOD), operation="UPDATE", oldObject=old))
    assert await site.events() == []
    admitted, excused = caplog.records
    assert (admitted.msg, vars(admitted)["images"][0]["by"]) == ("Admitted", ["plant=sha256:aa"])
    assert (excused.msg, vars(excused)["images"][0]["exceptions"]) == ("Admitted by exception", ("for-now",))


async def test_case_38c_a_dry_run_leaves_a_line_and_no_event(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await judge(site, review_of(pod_spec(UNSIGNED), dryRun=True))
    site.trail.changed(parse_change(change("Audit", dryRun=True)), ())
    assert await site.events() == []
    assert [vars(record)["dryRun"] for record in caplog.records] == [True, True]


async def test_audit_mode_is_told_too(site: Site) -> None:
    await judge(site, review_of(pod_spec(UNSIGNED)), mode="Audit")
    assert [event["reason"] for event in await site.events()] == ["ImageWouldBeRefused"]


def change(mode: str, plural: str = "trustpolicies", **request: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": "UPDATE",
            "resource": {"group": "edgemodel.dev", "resource": plural},
            "name": "plant",
            "userInfo": {"username": "kim"},
            "object": {"metadata": {"name": "plant", "uid": "o-1"}, "spec": {"mode": mode}},
            "oldObject": {"metadata": {"name": "plant", "uid": "o-1"}, "spec": {"mode": "Enforce"}},
        }
        | request,
    }


async def test_a_change_of_trust_is_told_at_its_object(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.trail.changed(parse_change(change("Audit")), ())
    site.trail.changed(parse_change(change("Off")), ("the policy cannot be understood",))
    site.trail.changed(parse_change(change("Enforce")), ())  # nothing of the spec: no news
    in_namespace = change("Audit", "trustexceptions", namespace="edgemodel-system")
    site.trail.changed(parse_change(in_namespace), ())
    changed, refused, exception = await site.events()
    assert changed["metadata"]["namespace"] == "default"
    assert changed["involvedObject"] == {
        "apiVersion": "edgemodel.dev/v1alpha1",
        "kind": "TrustPolicy",
        "name": "plant",
        "uid": "o-1",
    }
    assert changed["message"] == 'UPDATE by kim: mode: "Enforce" → "Audit"'
    assert (changed["type"], refused["type"], refused["reason"]) == (
        "Normal",
        "Warning",
        "TrustChangeRefused",
    )
    assert (
        exception["involvedObject"]["namespace"] == exception["metadata"]["namespace"] == "edgemodel-system"
    )
    first = vars(caplog.records[0])
    assert (first["user"], first["object"]) == ("kim", "TrustPolicy plant")
    assert first["changes"] == ('mode: "Enforce" → "Audit"',)
