"""The claims of the README, in the order of the demo, with the operator in its own pod."""

from __future__ import annotations

import pytest

from cluster.base import Cluster
from demo.story import Story

pytestmark = pytest.mark.needs("pods", "cut", "arm64", "registry", "npu")


def test_one_apply_ends_with_the_model_ready_on_every_node(story: Story) -> None:
    story.first_version()


def test_every_node_gives_the_same_answer(story: Story) -> None:
    story.answers()


def test_a_new_version_costs_no_request_and_a_short_gap_on_the_exclusive_device(story: Story) -> None:
    story.second_version()


def test_a_version_that_answers_wrongly_is_rolled_back_unnoticed(story: Story) -> None:
    story.bad_version()


def test_an_offline_node_is_deferred_serves_on_and_catches_up(story: Story) -> None:
    story.offline_node()


def test_an_image_that_nobody_signed_is_refused(story: Story) -> None:
    story.unsigned_image()


def test_prometheus_tells_the_same_story(story: Story) -> None:
    story.metrics()


def test_pods_run_digests_without_tokens_or_rights(story: Story, edge_cluster: Cluster) -> None:
    pods = story.pods()
    assert len(pods) == len(edge_cluster.nodes())
    for pod in pods:
        spec = pod["spec"]
        container = spec["containers"][0]
        assert "@sha256:" in container["image"]
        assert spec["automountServiceAccountToken"] is False
        assert not any(volume.get("projected") for volume in spec["volumes"])
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
