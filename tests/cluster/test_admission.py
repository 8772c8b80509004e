"""The chart's admission as installed: replicas, upgrades, a power cut, and who passes for the operator."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cluster.commands import CommandFailed
from demo import objects
from demo.site import SYSTEM, Site
from demo.story import Story
from demo.unsigned import push_unsigned_copy

pytestmark = pytest.mark.needs("pods", "cut", "arm64", "registry", "npu", "power")

Json = dict[str, Any]
WHERE = f"--namespace={objects.NAMESPACE}"
SELECTOR = "app.kubernetes.io/component=admission"
SECONDS = 120


@pytest.fixture(scope="module")
def signed(story: Story, site: Site) -> str:
    """Give the image of the model's first version, which the operator signed."""
    story.ensure("1")
    image: str = site.get("edgemodel", objects.NAME, objects.NAMESPACE)["status"]["images"][0]["image"]
    return image


@pytest.fixture(scope="module")
def unsigned(site: Site, signed: str) -> str:
    """Give the same image as nobody signed it."""
    return push_unsigned_copy(site.cluster, signed)


def answer(site: Site, image: str) -> str:
    """Ask for a pod in the guarded namespace, without meaning it; gives the refusal, or an empty text."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "asked-for", "namespace": objects.NAMESPACE},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "any", "image": image}]},
    }
    try:
        site.cluster.kubectl("create", "-f", "-", "--dry-run=server", stdin=json.dumps(pod).encode())
    except CommandFailed as failed:
        return str(failed)
    return ""


def wait_until_admitted(site: Site, image: str) -> None:
    """Wait until a pod may be created."""
    ends = time.monotonic() + SECONDS
    while said := answer(site, image):
        assert time.monotonic() < ends, said
        time.sleep(0.5)


def replicas(site: Site) -> list[Json]:
    """Give the pods of the webhook that are not on their way out."""
    pods = site.cluster.kubectl_json("get", "pods", "--namespace", SYSTEM, "--selector", SELECTOR)["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def wait_until_available(site: Site) -> None:
    """Wait until both replicas are ready."""
    rollout = ["rollout", "status", "deployment/edgemodel-admission", "--namespace", SYSTEM]
    site.cluster.kubectl(*rollout, f"--timeout={SECONDS}s", timeout_s=SECONDS + 10)


@contextmanager
def asking(site: Site, image: str) -> Iterator[list[str]]:
    """Ask for a pod again and again as long as the block lasts; gives the answers."""
    answers: list[str] = []
    done = threading.Event()

    def loop() -> None:
        while not done.is_set():
            answers.append(answer(site, image))

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()


def test_two_replicas_stand_on_two_nodes_and_are_among_the_last_to_go(site: Site, signed: str) -> None:
    wait_until_available(site)
    pods = replicas(site)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == len(pods) == 2
    assert {pod["spec"]["priorityClassName"] for pod in pods} == {"system-cluster-critical"}
    budget = site.get("poddisruptionbudget", "edgemodel-admission", SYSTEM)["status"]
    assert (budget["expectedPods"], budget["disruptionsAllowed"]) == (2, 1)
    assert answer(site, signed) == ""


def test_nobody_passes_for_the_operator(story: Story, site: Site, signed: str) -> None:
    (daemonset, *_) = site.cluster.kubectl_json(
        "get", "daemonsets", WHERE, "--selector", "edgemodel.dev/role=serve"
    )["items"]
    name = f"daemonset/{daemonset['metadata']['name']}"
    before = story.pod_uids()
    labels = ",".join(f"{key}={value}" for key, value in daemonset["spec"]["selector"]["matchLabels"].items())
    for attempt in (
        ["set", "image", name, f"model={signed}x"],
        ["label", name, "edgemodel.dev/model-"],
        ["run", "imitation", f"--image={signed}", f"--labels={labels}"],
    ):
        with pytest.raises(CommandFailed, match="EdgeModel"):
            site.cluster.kubectl(*attempt, WHERE)
    assert story.pod_uids() == before


def test_case_39e_an_upgrade_lets_nothing_through_and_leaves_no_dead_hook(
    site: Site, signed: str, unsigned: str
) -> None:
    with asking(site, unsigned) as answers:
        site.cluster.kubectl("rollout", "restart", "deployment/edgemodel-admission", "--namespace", SYSTEM)
        wait_until_available(site)
        site.install()
    assert answers
    assert all(answers)
    wait_until_admitted(site, signed)


def test_case_39f_a_site_that_lost_all_power_comes_back_closed_and_by_itself(
    story: Story, site: Site, signed: str, unsigned: str
) -> None:
    nodes = [site.cluster.node(name) for name in {pod["spec"]["nodeName"] for pod in replicas(site)}]
    for node in nodes:
        node.power_off()
    try:
        assert "failed calling webhook" in answer(site, signed)
        assert "failed calling webhook" in answer(site, unsigned)
    finally:
        for node in nodes:
            node.power_on()
    with asking(site, unsigned) as answers:
        wait_until_admitted(site, signed)
    assert all(answers)
    assert "is not signed" in answer(site, unsigned)
    story.wait_ready("1")
