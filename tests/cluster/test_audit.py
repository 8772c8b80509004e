"""The audit of the installed product beside its webhook: what ran before runs on, and is listed."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.base import Cluster
from cluster.commands import CommandFailed
from cluster.node_files import static_pods
from cluster.places import API_PORT, CONTROL_PLANE_ADDRESS, NODES
from demo import objects
from demo.site import Site
from demo.story import Story
from edgemodel_operator.api.names import API_VERSION
from edgemodel_operator.signing.keys import LocalKey
from support.admission_site import push_image, sign

pytestmark = pytest.mark.needs("pods", "images", "registry")

Json = dict[str, Any]
GUARDED = {"edgemodel.dev/verify-images": "enforce"}
NODE = "edge-a"


class Corner:
    """A namespace, a repository and a policy for one test."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.name = f"audit-{secrets.token_hex(4)}"
        self._folder = folder
        self.label({})

    def label(self, labels: Json) -> None:
        """Have the namespace with these labels."""
        metadata = {"name": self.name, "labels": labels}
        self.site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def image(self, name: str, *keys: LocalKey) -> str:
        """Push an image that these keys sign."""
        image = push_image(self.site.cluster, self._folder, f"{self.name}/{name}")
        if keys:
            sign(self.site.cluster, image, *keys)
        return image

    def trust(self, *keys: LocalKey) -> None:
        """Have these keys count here."""
        data = [{"data": key.public_key.pem.decode()} for key in keys]
        spec = {
            "images": [f"{self.site.cluster.registry}/{self.name}/**"],
            "authorities": [{"name": "plant", "keys": data}],
        }
        metadata = {"name": self.name}
        self.site.apply(
            {"apiVersion": API_VERSION, "kind": "TrustPolicy", "metadata": metadata, "spec": spec}
        )

    def run(self, name: str, image: str) -> None:
        """Ask for a pod. Raises CommandFailed when it is refused."""
        metadata = {"name": name, "namespace": self.name}
        container = {"name": "main", "image": image}
        spec = {"containers": [container], "nodeName": NODE, "terminationGracePeriodSeconds": 0}
        self.site.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def until_runs(self, name: str) -> None:
        """Wait until a pod runs."""
        self.site.wait(f"{name} runs", lambda: self.pods().get(name, {}), is_running)

    def pods(self) -> dict[str, Json]:
        """Give the pods by name."""
        items = self.site.cluster.kubectl_json("get", "pods", f"--namespace={self.name}")["items"]
        return {pod["metadata"]["name"]: pod for pod in items}

    def until_found(self, holds: Callable[[set[tuple[str, str]]], bool], what: str) -> Json:
        """Wait until the operator's audit reports pods and reasons as wanted, under the policy of now."""

        def is_wanted(policy: Json) -> bool:
            status = policy.get("status") or {}
            current = status.get("observedGeneration") == policy["metadata"]["generation"]
            return current and holds({(one["pod"], one["reason"]) for one in status.get("findings") or ()})

        return self.site.wait(what, lambda: self.site.get("trustpolicy", self.name), is_wanted, 60)

    def is_refused(self, name: str, image: str, why: str) -> bool:
        """Say whether a pod is refused for this reason; one that is admitted is taken away again."""
        try:
            self.run(name, image)
        except CommandFailed as error:
            return why in str(error)
        self.site.cluster.kubectl("delete", "pod", name, f"--namespace={self.name}", "--wait=false")
        return False


def is_running(pod: Json) -> bool:
    """Say whether every container runs."""
    found = pod.get("status", {}).get("containerStatuses", ())
    return bool(found) and all("running" in one["state"] for one in found)


@pytest.fixture
def corner(site: Site, tmp_path: Path) -> Iterator[Corner]:
    corner = Corner(site, tmp_path)
    yield corner
    site.cluster.kubectl("delete", "trustpolicy", corner.name, "--ignore-not-found")
    site.cluster.kubectl("delete", "namespace", corner.name, "--wait=false")


def new_key() -> LocalKey:
    return LocalKey(ec.generate_private_key(ec.SECP256R1()))


def test_case_36_what_ran_before_is_reported_and_does_not_start_again(corner: Corner) -> None:
    unsigned = corner.image("unsigned")
    corner.run("from-before", unsigned)
    corner.until_runs("from-before")
    corner.trust(new_key())
    corner.label(GUARDED)
    policy = corner.until_found(lambda found: found == {("from-before", "Unsigned")}, "the finding")
    (finding,) = policy["status"]["findings"]
    assert (finding["namespace"], finding["image"], finding["node"]) == (corner.name, unsigned, NODE)
    assert is_running(corner.pods()["from-before"])
    corner.site.cluster.kubectl("delete", "pod", "from-before", f"--namespace={corner.name}")
    corner.site.wait(
        "the webhook refuses it",
        lambda: {"refused": corner.is_refused("from-before", unsigned, "is not signed")},
        lambda seen: bool(seen["refused"]),
    )
    corner.until_found(lambda found: not found, "the finding to go with the pod")


def test_case_67_without_the_old_key_its_pods_run_on_new_ones_are_refused_and_digests_are_listed(
    corner: Corner,
) -> None:
    old, new = new_key(), new_key()
    before, during = corner.image("before", old), corner.image("during", old, new)
    corner.trust(old, new)
    corner.label(GUARDED)
    for name, image in (("before", before), ("during", during)):
        corner.site.wait(
            f"{name} is admitted",
            lambda name=name, image=image: {"seen": admitted(corner, name, image)},  # type: ignore[misc]
            lambda seen: bool(seen["seen"]),
        )
        corner.until_runs(name)
    corner.until_found(lambda found: not found, "both keys count")
    corner.trust(new)
    policy = corner.until_found(lambda found: found == {("before", "UnknownKey")}, "the old key's image")
    assert [one["image"] for one in policy["status"]["findings"]] == [before]
    assert corner.is_refused("again", before, "none of the keys")
    assert not corner.is_refused("again", during, "none of the keys")
    assert is_running(corner.pods()["before"])


def test_case_43c_a_static_pod_in_a_guarded_namespace_is_seen_and_reported(corner: Corner) -> None:
    """No admission can stop it: the webhook lets the kubelet tell of it, so that the audit sees it."""
    unsigned = corner.image("unsigned")
    corner.trust(new_key())
    corner.label(GUARDED)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "by-file", "namespace": corner.name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": unsigned}],
        },
    }
    file = static_pods(next(plan for plan in NODES if plan.name == NODE)) / f"{corner.name}.json"
    file.write_text(json.dumps(pod))
    try:
        expected = {(f"by-file-{NODE}", "StaticPod")}
        corner.until_found(lambda found: found == expected, "the static pod")
    finally:
        file.unlink()


def test_a_model_is_followed_from_its_source_to_its_nodes(
    story: Story, edge_cluster: Cluster, tmp_path: Path
) -> None:
    """As a person does who has a kubeconfig of the plant; all is read from cluster and registry."""
    story.ensure("1")
    config = edge_cluster.kubectl_json("config", "view", "--raw")
    config["clusters"][0]["cluster"]["server"] = f"https://{CONTROL_PLANE_ADDRESS}:{API_PORT}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))

    def plugin(*arguments: str) -> Any:
        program = (sys.executable, "-m", "edgemodel_operator.cli.kubectl")
        place = (f"--namespace={objects.NAMESPACE}", f"--kubeconfig={kubeconfig}", "--output=json")
        http = f"--plain-http={edge_cluster.registry}"
        return json.loads(edge_cluster.run_in_cp([*program, *arguments, *place, http]))

    verified = plugin("verify", objects.NAME)
    assert {one["state"] for one in verified} == {"Trusted"}
    for trail in plugin("audit", objects.NAME):
        assert [one["model"] for one in trail["sources"]] == [f"{objects.NAMESPACE}/{objects.NAME}"]
        assert trail["provenance"]["runDetails"]["builder"]["id"] == "https://edgemodel.dev/builder/v1"
        assert {one["node"] for one in trail["nodes"]} <= set(edge_cluster.nodes())
        assert trail["nodes"]
        assert trail["problems"] == []


def admitted(corner: Corner, name: str, image: str) -> bool:
    """Ask for a pod; a webhook that has not seen a new policy or label yet refuses it for a moment."""
    try:
        corner.run(name, image)
    except CommandFailed:
        return False
    return True
