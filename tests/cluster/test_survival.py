"""The operator is killed with SIGKILL at the worst moments, and its things are taken away: same end state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.base import Cluster
from demo import objects
from demo.models import ModelFile
from demo.site import SYSTEM, Site, condition, is_true
from demo.story import Story
from edgemodel_operator.api import names
from support.processes import kill_operator

pytestmark = pytest.mark.needs("pods", "cut", "arm64", "registry", "npu")

Json = dict[str, Any]
Moment = Callable[[Json], bool]


@pytest.fixture(autouse=True)
def short_probation(story: Story) -> None:
    """Roll out as fast as the moments that are to be hit allow."""
    story.probation = 2


def end_state(site: Site) -> Json:
    """Give everything that a rollout leaves behind: labels, DaemonSets, image, revision."""
    model = site.get("edgemodel", objects.NAME, objects.NAMESPACE)
    status = model["status"]
    daemonsets = site.cluster.kubectl_json("get", "daemonsets", "--namespace", objects.NAMESPACE)["items"]
    labels = {
        node["metadata"]["name"]: sorted(
            (key.rpartition(".")[2], value)
            for key, value in node["metadata"]["labels"].items()
            if key.startswith(names.NODE_LABEL_PREFIX + model_key_of(model))
        )
        for node in site.cluster.kubectl_json("get", "nodes")["items"]
    }
    return {
        "labels": labels,
        "daemonsets": sorted(
            item["metadata"]["name"]
            for item in daemonsets
            if item["metadata"]["labels"]["edgemodel.dev/model"] == model_key_of(model)
        ),
        "image": status["images"][0]["image"],
        "current": status["currentRevision"],
        "version": status["version"],
    }


def model_key_of(model: Json) -> str:
    """Give the key of a model."""
    return names.model_key(model["metadata"]["namespace"], model["metadata"]["name"])


def is_building(status: Json) -> bool:
    """The image is being made."""
    return condition(status, "Ready").get("reason") in ("Fetching", "Building", "Signing")


def is_in_a_wave(status: Json) -> bool:
    """A node is under trial."""
    return bool(status["nodes"]["trial"] > 0)


def is_rolling_back(status: Json) -> bool:
    """The quarantine is written; nodes may still go back."""
    return any(item["revision"] == status["targetRevision"] for item in status["quarantined"])


def reach(site: Site, what: str, moment: Moment) -> None:
    """Wait until the status, of whatever generation, shows the moment."""
    site.wait(
        what,
        lambda: site.get("edgemodel", objects.NAME, objects.NAMESPACE),
        lambda model: moment(model["status"]),
        60,
    )


@pytest.mark.parametrize("moment", [is_building, is_in_a_wave], ids=["in a build", "in a wave"])
def test_a_kill_during_an_update_changes_nothing(story: Story, site: Site, moment: Moment) -> None:
    story.ensure("1")
    version = story.fresh_version().version

    story.apply(version)
    reach(site, "the moment to kill", moment)
    kill_operator(site)

    story.wait_ready(version)
    disturbed = end_state(site)
    story.ensure("1")
    story.ensure(version)
    assert end_state(site) == disturbed


def test_a_kill_during_a_rollback_changes_nothing(story: Story, site: Site) -> None:
    story.ensure("2")
    undisturbed = end_state(site)

    story.apply("3")
    reach(site, "the rollback", is_rolling_back)
    kill_operator(site)

    story.wait_rolled_back("2")
    after = end_state(site)
    assert after["labels"] == undisturbed["labels"]
    assert after["current"] == undisturbed["current"]
    story.ensure("2")
    assert end_state(site) == undisturbed


def test_case_68c_a_missing_or_corrupt_signing_key_stalls_and_recovers(
    story: Story, site: Site, edge_cluster: Cluster, signing_key: Json
) -> None:
    story.ensure("2")
    running = story.pod_uids()
    model: ModelFile = story.fresh_version()
    place = ("--namespace", "edgemodel-system")
    restarted = restarts(site)

    edge_cluster.kubectl("delete", "secret", "edgemodel-signing-key", *place)
    story.apply(model.version)
    status = story.wait_condition("Signed", "SigningKeyNotFound")
    assert is_true(status, "Stalled")
    assert "edgemodel keygen" in condition(status, "Signed")["message"]

    for field, sentence in (
        ("cosign.password", "the password does not open the private key"),
        ("cosign.key", "not exactly one PEM block"),
    ):
        site.apply(signing_key | {"data": {**signing_key["data"], field: "d3Jvbmc="}})
        status = site.wait_model(
            objects.NAME,
            objects.NAMESPACE,
            f"the condition says that {field} is of no use",
            lambda seen, says=sentence: says in condition(seen, "Signed").get("message", ""),
            timeout_s=90,
        )["status"]
        assert condition(status, "Signed")["reason"] == "SigningKeyInvalid"
        assert is_true(status, "Stalled")
        assert story.pod_uids() == running
    assert restarts(site) == restarted

    edge_cluster.kubectl("delete", "secret", "edgemodel-signing-key", *place)
    site.apply(signing_key)
    story.wait_ready(model.version)
    assert story.pod_uids() != running


def restarts(site: Site) -> int:
    """Count how often containers of the signer were started again."""
    selector = "app.kubernetes.io/component=signer"
    pods = site.cluster.kubectl_json("get", "pods", "--namespace", SYSTEM, "--selector", selector)["items"]
    assert pods
    return sum(state["restartCount"] for pod in pods for state in pod["status"]["containerStatuses"])


@pytest.mark.parametrize("moment", ["at once", "in a build", "in a trial", "when ready"])
def test_deleting_a_model_at_any_moment_leaves_nothing(story: Story, site: Site, moment: str) -> None:
    name = f"shortlived-{moment.replace(' ', '-')}"
    story.apply("1", name)
    moments: dict[str, Moment] = {
        "in a build": is_building,
        "in a trial": is_in_a_wave,
        "when ready": lambda status: is_true(status, "Ready"),
    }
    if moment in moments:
        site.wait(
            moment,
            lambda: site.get("edgemodel", name, objects.NAMESPACE),
            lambda model: moments[moment](model.get("status") or {"nodes": {"trial": 0}}),
        )

    site.cluster.kubectl("delete", "edgemodel", name, "--namespace", objects.NAMESPACE, "--timeout", "60s")

    site.wait(
        "nothing of the model is left", lambda: {"left": leftovers(site, name)}, lambda seen: not seen["left"]
    )


def leftovers(site: Site, name: str) -> list[str]:
    """Name everything that still belongs to a model."""
    key = model_key_of({"metadata": {"namespace": objects.NAMESPACE, "name": name}})
    left = []
    for kind in ("daemonsets", "services", "configmaps", "pods"):
        found = site.cluster.kubectl_json(
            "get", kind, "--namespace", objects.NAMESPACE, "--selector", f"edgemodel.dev/model={key}"
        )["items"]
        left += [f"{kind}/{item['metadata']['name']}" for item in found]
    for node in site.cluster.kubectl_json("get", "nodes")["items"]:
        left += [
            f"{node['metadata']['name']}: {label}" for label in node["metadata"]["labels"] if key in label
        ]
    return left
