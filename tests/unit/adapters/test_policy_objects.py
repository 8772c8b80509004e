"""What the audit reads beside pods, and its events: told once, moved when they come again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.adapters.policy_status import EVENTS, POLICIES, PolicyObjects, selector_text
from edgemodel_operator.api.trustpolicy_status import TrustPolicyStatus
from edgemodel_operator.core.audit_status import News
from support.kube_api import KubeApiServer, kube_api_server

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
POLICY = {"metadata": {"name": "models", "uid": "uid-1"}}
FOUND = News("Warning", "Unsigned", "registry.plant-a.local/x", "it runs")


@pytest.fixture
async def kube() -> AsyncIterator[tuple[KubeApiServer, KubeApi]]:
    async with kube_api_server() as pair:
        yield pair


def objects_of(api: KubeApi) -> PolicyObjects:
    return PolicyObjects(api, "edgemodel-system", "operator-0", "edgemodel.dev/verify-images=enforce")


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        (
            {
                "matchLabels": {"a": "1"},
                "matchExpressions": [
                    {"key": "site", "operator": "In", "values": ["x", "y"]},
                    {"key": "zone", "operator": "NotIn", "values": ["z"]},
                    {"key": "edge", "operator": "Exists"},
                    {"key": "test", "operator": "DoesNotExist"},
                ],
            },
            "a=1,site in (x,y),zone notin (z),edge,!test",
        ),
    ],
)
def test_a_selector_is_written_as_the_api_takes_it(selector: dict[str, Any], text: str) -> None:
    assert selector_text(selector) == text


async def test_the_namespaces_that_are_never_judged_are_not_guarded(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    for name in ("plant-a", "kube-system", "edgemodel-system"):
        await server.put(f"/api/v1/namespaces/{name}", {"metadata": {"name": name}})
    assert await objects_of(api).list_guarded() == {"plant-a"}


async def test_the_same_news_is_one_event_whose_time_moves(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    objects = objects_of(api)
    await objects.tell(POLICY, FOUND, NOW)
    await objects.tell(POLICY, FOUND, NOW + timedelta(minutes=5))
    await objects.tell(POLICY, News("Normal", "Resolved", FOUND.image, "it is gone"), NOW)
    events = [one for path, one in server.objects.items() if path.startswith(EVENTS)]
    assert sorted((one["reason"], one["lastTimestamp"]) for one in events) == [
        ("Resolved", "2026-11-21T12:00:00Z"),
        ("Unsigned", "2026-11-21T12:05:00Z"),
    ]
    assert {one["involvedObject"]["uid"] for one in events} == {"uid-1"}


async def test_a_policy_that_is_gone_needs_no_status_and_a_failure_is_told(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    await objects_of(api).write_status("gone", TrustPolicyStatus())
    server.refuse["PATCH", POLICIES] = 500
    with pytest.raises(KubeError):
        await objects_of(api).write_status("gone", TrustPolicyStatus())


async def test_only_exceptions_that_count_are_read(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    path = "/apis/edgemodel.dev/v1alpha1/namespaces/edgemodel-system/trustexceptions"
    spec = {
        "images": ["**"],
        "namespaces": ["*"],
        "expires": "2026-12-01T00:00:00Z",
        "reason": "until it is signed",
    }
    metadata = {"namespace": "edgemodel-system"}
    await server.put(f"{path}/good", {"metadata": {"name": "good", **metadata}, "spec": spec})
    await server.put(f"{path}/odd", {"metadata": {"name": "odd", **metadata}, "spec": {**spec, "images": 1}})
    assert [one.name for one in await objects_of(api).list_exemptions()] == ["good"]
