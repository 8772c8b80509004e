"""Raw objects as the API server gives them, read into the types of the world."""

from __future__ import annotations

from datetime import UTC, datetime

from edgemodel_operator.adapters.decode import decode_claims, decode_node, decode_pod, decode_workload

NODE = {
    "metadata": {"name": "edge-b", "uid": "n-2", "labels": {"site": "plant-a"}},
    "spec": {"taints": [{"key": "dedicated", "effect": "NoSchedule"}]},
    "status": {
        "capacity": {"cpu": "4", "example.com/npu": "1", "hugepages-1Gi": "0"},
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "nodeInfo": {"architecture": "arm64"},
    },
}
POD = {
    "metadata": {
        "name": "line-x",
        "uid": "p-1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {
            "edgemodel.dev/revision": "abc",
            "edgemodel.dev/target": "cpu",
            "edgemodel.dev/role": "serve",
        },
    },
    "spec": {"nodeName": "edge-b"},
}


def test_a_node() -> None:
    node = decode_node(NODE)
    assert (node.name, node.ready, node.architecture) == ("edge-b", True, "arm64")
    assert node.capacity == {"example.com/npu": 1}
    assert [(taint.key, taint.effect) for taint in node.taints] == [("dedicated", "NoSchedule")]


def test_a_node_whose_heartbeat_is_missing_is_not_ready() -> None:
    lost = {**NODE, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    assert decode_node(lost).ready is False


def test_a_pod_that_no_kubelet_took_is_not_acknowledged() -> None:
    pod = decode_pod({**POD, "status": {"phase": "Pending"}})
    assert (pod.acknowledged, pod.running, pod.ready, pod.ready_since) == (False, False, False, None)


def test_a_running_pod() -> None:
    status = {
        "startTime": "2026-01-01T00:00:01Z",
        "podIP": "10.0.0.7",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}],
        "containerStatuses": [{"restartCount": 2, "state": {"running": {}}}],
    }
    pod = decode_pod({**POD, "status": status})
    assert (pod.acknowledged, pod.running, pod.ready, pod.restarts) == (True, True, True, 2)
    assert pod.ready_since == datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert (pod.node, pod.revision, pod.target, pod.ip) == ("edge-b", "abc", "cpu", "10.0.0.7")


def test_a_pod_says_why_it_waits() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no route"}}
    status = {"startTime": "2026-01-01T00:00:01Z", "containerStatuses": [{"state": waiting}]}
    assert decode_pod({**POD, "status": status}).waiting == "ImagePullBackOff: no route"
    unplaced = {
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no npu"}
        ]
    }
    assert decode_pod({**POD, "status": unplaced}).waiting == "Unschedulable: no npu"


def test_a_pod_that_is_being_deleted_is_terminating() -> None:
    metadata = {**POD["metadata"], "deletionTimestamp": "2026-01-01T00:01:00Z"}
    assert decode_pod({**POD, "metadata": metadata}).terminating is True


def test_a_workload() -> None:
    workload = decode_workload({"metadata": {"name": "line-cpu-abc", "labels": POD["metadata"]["labels"]}})
    assert (workload.name, workload.revision, workload.target, workload.role) == (
        "line-cpu-abc",
        "abc",
        "cpu",
        "serve",
    )


def test_pods_and_daemon_sets_name_their_image() -> None:
    template = {"spec": {"containers": [{"name": "server", "image": "registry.example.com/line@sha256:1"}]}}
    pod = decode_pod({**POD, "spec": {**POD.get("spec", {}), **template["spec"]}})
    assert pod.image == "registry.example.com/line@sha256:1"
    workload = decode_workload({"metadata": {"name": "line"}, "spec": {"template": template}})
    assert workload.image == pod.image
    assert decode_workload({"metadata": {"name": "line"}}).image == ""


def test_a_model_claims_every_image_that_it_has_recorded() -> None:
    status = {
        "images": [{"image": "a"}],
        "retainedImages": [{"image": "b"}, {}],
        "revisions": [{"targets": [{"image": "c"}]}, {}],
    }
    assert decode_claims({"metadata": {}, "status": status}) == {"a", "b", "c"}
    assert decode_claims({"metadata": {}}) == frozenset()
    assert decode_claims({"metadata": {"deletionTimestamp": "now"}, "status": status}) == frozenset()
