"""The second line: nodes pull nothing that nobody vouches for, whoever asks, until it is uninstalled."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from cluster.base import Cluster
from demo.site import SYSTEM, Site
from edgemodel_operator.node.client import GRACE_S
from edgemodel_operator.node.hook import NAME
from edgemodel_operator.signing.keys import generate_key_pair, load_private_key
from support.node_site import NodeSide, NodeSite, poisoned_mirror, until

pytestmark = pytest.mark.needs("pods", "images", "registry", "cut", "power", "arm64")

Json = dict[str, Any]
SPACE = "second-line"
"""A namespace that no webhook guards."""
NOWHERE = {"kubernetes.io/arch": "none"}
PREFIX = "second-line"


def with_nodes(site: Site, **verifier: Any) -> Site:
    """Give the commands for the same plant with other settings of the node verifier."""
    return Site(site.cluster, site.images, **{**site._values, "nodeVerifier": verifier})


@pytest.fixture(scope="module")
def plant(site: Site, edge_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeSite]:
    """Have every node verify, under a policy for the images of these tests alone."""
    key = load_private_key(generate_key_pair(b"x").private_pem, b"x")
    plant = NodeSite(edge_cluster, tmp_path_factory.mktemp("images"), key, PREFIX)
    policy = plant.policy("second-line", f"{edge_cluster.registry}/{PREFIX}/models/**")
    site.apply(policy, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    try:
        with_nodes(site, enabled=True).install()
        for node in plant.nodes.values():
            until(partial(has_programs, node, [NAME]), f"{node.name} asks")
        yield plant
    finally:
        site.install()
        for node in plant.nodes.values():
            node.clean()  # also after a test that failed half-way
        edge_cluster.kubectl("delete", "trustpolicy", "second-line", "--ignore-not-found")
        edge_cluster.kubectl("delete", "namespace", SPACE, "--wait=false")


@pytest.fixture
def node(plant: NodeSite) -> NodeSide:
    """Give one node."""
    return plant.nodes["edge-b"]


def pod(name: str, image: str, node: NodeSide, pull: str = "IfNotPresent") -> Json:
    """Give a pod that runs on one node."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {
            "nodeName": node.name,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image, "imagePullPolicy": pull}],
        },
    }


def has_programs(node: NodeSide, names: list[str]) -> bool:
    """Say whether containerd starts exactly these before a pull."""
    return node.programs == names


def is_clean(node: NodeSide) -> bool:
    """Say whether nothing is left of an agent."""
    return not list(node.state.iterdir())


def waiting(site: Site, name: str) -> str:
    """Give why the container of a pod waits, as the kubelet says it."""
    statuses = site.get("pod", name, SPACE).get("status", {}).get("containerStatuses") or [{}]
    return json.dumps(statuses[0].get("state", {}).get("waiting", {}))


def is_running(site: Site, name: str) -> bool:
    """Say whether a pod runs."""
    return bool(site.get("pod", name, SPACE).get("status", {}).get("phase") == "Running")


def test_an_unsigned_image_is_refused_at_pull_where_no_webhook_looks(
    plant: NodeSite, site: Site, node: NodeSide
) -> None:
    image = plant.push("models/unsigned")
    site.apply(pod("unsigned", image, node))
    until(lambda: "does not satisfy TrustPolicy" in waiting(site, "unsigned"), "the pull is refused")
    assert "ErrImagePull" in waiting(site, "unsigned") or "ImagePullBackOff" in waiting(site, "unsigned")
    events = site.cluster.kubectl(
        "get", "events", "-n", SPACE, "--field-selector=involvedObject.name=unsigned", "-o", "json"
    )
    assert "it is not signed" in events


@pytest.mark.parametrize("name", ["edge-a", "edge-c"])
def test_a_signed_image_is_pulled_on_each_architecture(plant: NodeSite, site: Site, name: str) -> None:
    image = plant.push(f"models/signed-{name}")
    plant.sign(image)
    site.apply(pod(f"signed-{name}", image, plant.nodes[name]))
    until(lambda: is_running(site, f"signed-{name}"), "the pod runs")


def test_who_pulls_by_hand_is_asked_the_same(plant: NodeSite, node: NodeSide) -> None:
    image = plant.push("models/by-hand")
    assert "it is not signed" in node.pull(image)
    # A tag is verified as what it stands for at that moment.
    tagged = f"{image.partition('@')[0]}:1"
    assert "it is not signed" in node.pull(tagged)
    plant.sign(image)
    assert node.pull(tagged) == ""


def test_images_that_no_policy_covers_are_pulled(plant: NodeSite, node: NodeSide) -> None:
    assert node.pull(plant.push("other/tool")) == ""


def test_case_25b_what_was_verified_is_pulled_again_without_its_signatures(
    plant: NodeSite, node: NodeSide
) -> None:
    image = plant.push("models/remembered")
    plant.sign(image)
    assert node.pull(image) == ""
    node.forget(image)
    plant.unsign(image)
    other = plant.nodes["edge-a"]
    assert "it is not signed" in other.pull(image)  # this one has never verified it
    assert node.pull(image) == ""


def test_case_26_a_mirror_with_a_poisoned_tag_gets_nothing_onto_a_node(
    plant: NodeSite, site: Site, node: NodeSide
) -> None:
    good = plant.push("models/mirrored")
    plant.sign(good)
    name = good.partition("@")[0]
    uncovered = plant.push("other/mirrored").partition("@")[0]
    evil = {
        repository: plant.push(f"{repository}-evil").partition("@")[2]
        for repository in ("models/mirrored", "other/mirrored")
    }
    with poisoned_mirror(plant, node, evil) as asked:
        # Where nobody vouches, the mirror is believed: that is what a tag is worth.
        assert node.pull(f"{uncovered}:1") == ""
        assert evil["other/mirrored"] in node.digests(uncovered)
        refused = node.pull(f"{name}:1")
        assert evil["models/mirrored"] in refused
        assert "does not satisfy TrustPolicy" in refused
        assert len(asked) >= 2
        site.apply(pod("mirrored", good, node))
        until(lambda: is_running(site, "mirrored"), "the pod by digest runs the true image")


def test_case_43b_an_image_imported_by_hand_runs_since_nobody_pulls_it(
    plant: NodeSite, site: Site, node: NodeSide
) -> None:
    image = plant.push("models/imported")
    plant.cluster.load_image(plant.archive(image), [node.name])
    tagged = f"{image.partition('@')[0]}:1"
    site.apply(pod("imported", tagged, node, pull="IfNotPresent"))
    until(lambda: is_running(site, "imported"), "the imported image runs")
    site.apply(pod("imported-always", tagged, node, pull="Always"))
    until(lambda: "it is not signed" in waiting(site, "imported-always"), "asking the registry asks us")


def test_nothing_slips_through_while_the_agent_is_replaced(plant: NodeSite, node: NodeSide) -> None:
    image = plant.push("models/during-rollout")
    plant.cluster.kubectl("rollout", "restart", "daemonset/edgemodel-node", "-n", SYSTEM)
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        assert "image verifier bindir blocked pull" in node.pull(image)
        status = plant.cluster.kubectl_json("get", "daemonset", "edgemodel-node", "-n", SYSTEM)["status"]
        if status.get("updatedNumberScheduled") == status["desiredNumberScheduled"] == status["numberReady"]:
            break
    else:
        pytest.fail("the DaemonSet was not replaced in time")


def test_a_node_without_power_and_network_goes_by_what_it_verified(plant: NodeSite, node: NodeSide) -> None:
    known, unknown, other = (plant.push(name) for name in ("models/known", "models/unknown", "other/x"))
    plant.sign(known)
    plant.sign(unknown)
    assert node.pull(known) == ""
    machine = plant.cluster.node(node.name)
    machine.power_off()
    try:
        machine.power_on()
        machine.cut()
        # The kubelet starts nothing before it has reached the API server, and so not the agent either.
        assert node.ask(known).returncode == 0
        assert node.ask(other).returncode == 0
        refused = node.ask(unknown)
        assert refused.returncode == 1
        assert "was not verified here before" in refused.stdout
        assert not node.marker.exists()
    finally:
        machine.restore()
    until(lambda: node.pull(unknown) == "", "with the network, new images are verified again")


def test_a_node_that_the_agent_has_left_refuses_for_a_while_and_then_lets_go(
    plant: NodeSite, site: Site, node: NodeSide
) -> None:
    known, unknown, other = (plant.push(name) for name in ("models/kept", "models/new", "other/y"))
    plant.sign(known)
    assert node.pull(known) == ""
    node.forget(known)
    with_nodes(site, enabled=True, nodeSelector=NOWHERE).install()
    try:
        until(lambda: "does not answer" in node.pull(unknown), "the agent is gone")
        assert node.programs == [NAME]
        assert node.pull(known) == ""
        assert node.pull(other) == ""
        until(lambda: bool(node.pull(unknown)) and node.marker.exists(), "the kubelet has forgotten the pod")
        past = time.time() - GRACE_S - 5
        os.utime(node.marker, (past, past))
        assert node.pull(unknown) == ""
        assert node.programs == []
    finally:
        with_nodes(site, enabled=True).install()
        until(lambda: node.programs == [NAME], "the agent is back")
    until(lambda: bool(node.pull(plant.push("models/newer"))), "and refuses again")


def test_uninstalling_leaves_nothing_that_could_refuse_a_pull(
    plant: NodeSite, site: Site, node: NodeSide
) -> None:
    image = plant.push("models/after")
    assert node.pull(image) != ""
    site.install()  # the verifier is off by default
    try:
        for each in plant.nodes.values():
            until(partial(has_programs, each, []), f"{each.name} asks nobody")
            until(partial(is_clean, each), f"{each.name} is clean")
        assert node.pull(image) == ""
    finally:
        with_nodes(site, enabled=True).install()
        until(lambda: node.programs == [NAME], "the agent is back")
