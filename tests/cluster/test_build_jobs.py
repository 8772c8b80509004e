"""Builds in Jobs on real nodes: models on a volume; Jobs that cannot start, are deleted, or outlive us."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.base import Cluster
from cluster.tools import tool
from demo import objects
from demo.models import ModelFile
from demo.pictures import json_request, orientation_of
from demo.site import PUBLIC_KEY, SIGNING_KEY, SYSTEM, Site, condition, is_true
from demo.story import Story
from edgemodel_operator.adapters.jobs import Jobs, LogLine
from edgemodel_operator.adapters.kube import connect
from edgemodel_operator.api.names import FIELD_MANAGER, model_key
from edgemodel_operator.build.protocol import MAX_LINE_BYTES
from support.processes import held_build, kill_operator

pytestmark = pytest.mark.needs("pods", "registry", "cut")

Json = dict[str, Any]
NAMESPACE = "build-jobs"
FORBIDDEN = "build-jobs-forbidden"
CLAIM = "models"
LOST_CLAIM = "lost"
LOGIN = "plant-login"
PASSWORD = f"plant-{secrets.token_hex(8)}"
FOLDER = f"/var/lib/edgemodel-test-{secrets.token_hex(4)}"
"""On the node that has the volume."""


@dataclass(frozen=True)
class Volume:
    """A place in the plant with a volume that holds models."""

    site: Site
    node: str
    run: str
    """A word of this run's own: repositories named after it hold nothing of earlier ones."""

    def edge_model(self, name: str, version: ModelFile, change: Callable[[Json], None] | None = None) -> Json:
        """Give an EdgeModel whose source is the volume."""
        cluster = self.site.cluster
        document = objects.edge_model(version, "", cluster.registry, name)
        document["metadata"]["namespace"] = NAMESPACE
        spec = document["spec"]
        pvc = {"claimName": CLAIM, "path": f"line/{version.path.name}", "sha256": version.sha256}
        spec["model"]["source"] = {"pvc": pvc}
        spec["image"] = {"repository": f"{cluster.registry}/models/{name}-{self.run}"}
        spec["image"]["pullSecrets"] = [{"name": LOGIN}]
        spec["placement"] = {"nodeSelector": {"kubernetes.io/hostname": self.node}}
        spec["health"] = {"probationSeconds": 0}
        if change is not None:
            change(spec)
        return document

    def wait(self, name: str, what: str, holds: Callable[[Json], bool], timeout_s: float = 120) -> Json:
        """Wait for the status of a model."""
        model = self.site.wait_model(name, NAMESPACE, what, holds, timeout_s)
        status: Json = model["status"]
        return status

    def wait_failure(self, name: str, kind: str, reason: str) -> str:
        """Wait until a condition gives a reason, and give its message."""
        status = self.wait(name, reason, lambda seen: condition(seen, kind).get("reason") == reason)
        return str(condition(status, kind)["message"])

    def jobs(self, name: str, kind: str = "jobs") -> list[Json]:
        """Give the Jobs, or their pods, of a model."""
        selector = f"edgemodel.dev/build-of={model_key(NAMESPACE, name)}"
        found = self.site.cluster.kubectl_json("get", kind, "--namespace", NAMESPACE, "--selector", selector)
        items: list[Json] = found["items"]
        return items

    def delete(self, name: str) -> None:
        """Delete a model, and wait until nothing of its builds is left."""
        self.site.cluster.kubectl(
            "delete", "edgemodel", name, "--namespace", NAMESPACE, "--timeout", "60s", "--ignore-not-found"
        )
        self.site.wait(
            f"nothing of the builds of {name} is left",
            lambda: {
                "left": [
                    item["metadata"]["name"] for kind in ("jobs", "pods") for item in self.jobs(name, kind)
                ]
            },
            lambda seen: not seen["left"],
            60,
        )


@pytest.fixture(scope="module")
def volume(story: Story, site: Site) -> Iterator[Volume]:
    """Put the models on a volume of one node, in a namespace with the strictest rules for pods."""
    cluster = site.cluster
    node = cluster.nodes()[0]
    for name in (NAMESPACE, FORBIDDEN):
        document = objects.namespace(name)
        document["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted"
        site.apply(document)
    forget(cluster)
    run_on_node(site, node, write_files(story.url, [story.versions["1"], story.versions["2"]]))
    site.apply(*persistent_volume(node), claim(LOST_CLAIM, "no-such-volume"), login())
    yield Volume(site, node, secrets.token_hex(4))
    forget(cluster)
    run_on_node(site, node, f"import shutil; shutil.rmtree('{FOLDER}/line')")


def forget(cluster: Cluster) -> None:
    """Take away what this run, or one before, has made."""
    for name in (NAMESPACE, FORBIDDEN):
        cluster.kubectl(
            "delete", "edgemodels", "--all", "--namespace", name, "--timeout", "60s", timeout_s=70
        )
    cluster.kubectl("delete", "pvc", "--all", "--namespace", NAMESPACE, "--timeout", "60s", timeout_s=70)
    cluster.kubectl("delete", "--ignore-not-found", f"pv/{NAMESPACE}", "trustpolicy/builds", timeout_s=70)


def write_files(url: str, versions: list[ModelFile]) -> str:
    """Give a program that fetches the models into the folder of the volume."""
    names = [version.path.name for version in versions]
    return (
        "import pathlib, urllib.request\n"
        f"folder = pathlib.Path('{FOLDER}/line')\n"
        "folder.mkdir(exist_ok=True)\n"
        f"for name in {names!r}:\n"
        f"    (folder / name).write_bytes(urllib.request.urlopen('{url}/' + name).read())\n"
    )


def run_on_node(site: Site, node: str, program: str) -> None:
    """Run a Python program with the folder of the volume, as root, on a node."""
    pod: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "volume-keeper", "namespace": SYSTEM},
        "spec": {
            "restartPolicy": "Never",
            "nodeName": node,
            "volumes": [{"name": "files", "hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}}],
            "containers": [
                {
                    "name": "python",
                    "image": site.images["operator"],
                    "command": ["/usr/bin/python3", "-c", program],
                    "securityContext": {"runAsUser": 0},
                    "volumeMounts": [{"name": "files", "mountPath": FOLDER}],
                }
            ],
        },
    }
    place = ("--namespace", SYSTEM)
    site.cluster.kubectl("delete", "pod", "volume-keeper", "--ignore-not-found", *place)
    site.apply(pod)
    site.wait(
        "the files are written",
        lambda: site.get("pod", "volume-keeper", SYSTEM),
        lambda seen: seen["status"].get("phase") == "Succeeded",
        60,
    )
    site.cluster.kubectl("delete", "pod", "volume-keeper", *place)


def persistent_volume(node: str) -> tuple[Json, Json]:
    """Give a volume that lies on one node, and the claim for it."""
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": NAMESPACE},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": NAMESPACE, "name": CLAIM},
            "hostPath": {"path": FOLDER},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        },
    }
    return volume, claim(CLAIM, NAMESPACE)


def claim(name: str, volume: str) -> Json:
    """Give a claim for one volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def login() -> Json:
    """Give a Secret with a password that must be seen nowhere."""
    entry = {"username": "plant", "password": PASSWORD}
    config = json.dumps({"auths": {"registry.plant-a.local": entry}})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": LOGIN, "namespace": NAMESPACE},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config},
    }


def trust_the_image_of_jobs(site: Site, folder: Path) -> None:
    """Sign the operator's image and say that it may run: what a plant does once for each version."""
    fields = site.get("secret", SIGNING_KEY, SYSTEM)["data"]
    key = folder / "cosign.key"
    key.write_bytes(base64.b64decode(fields["cosign.key"]))
    image = site.images["operator"]
    site.cluster.run_in_cp(
        ["env", f"COSIGN_PASSWORD={base64.b64decode(fields['cosign.password']).decode()}",
         str(tool("cosign-v2")), "sign", "--yes", "--recursive", "--tlog-upload=false",
         "--allow-http-registry=true", "--key", str(key), image]
    )  # fmt: skip
    policy = objects.trust_policy(site.cluster.registry, PUBLIC_KEY)
    policy["metadata"]["name"] = "builds"
    policy["spec"]["images"] = [image.partition("@")[0]]
    del policy["spec"]["attestations"]  # no build of ours has told what it is made of
    site.apply(policy)


@pytest.fixture(scope="module")
def trusted(volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """Let Jobs run where only trusted images do."""
    trust_the_image_of_jobs(volume.site, tmp_path_factory.mktemp("key"))
    return volume


async def read_log(site: Site, pod: str, after: str = "") -> list[LogLine]:
    """Read the log of a pod in the system's namespace as the operator does."""
    async with connect(str(site.cluster.kubeconfig)) as kube:
        return [line async for line in Jobs(kube).follow(SYSTEM, pod, after)]


# --- the claims --------------------------------------------------------------------------------------------


def test_a_job_whose_image_nobody_vouches_for_is_refused_and_goes_on_when_somebody_does(
    volume: Volume, story: Story, tmp_path: Path
) -> None:
    name = "vouched"
    volume.site.apply(volume.edge_model(name, story.versions["1"]))

    message = volume.wait_failure(name, "Built", "JobRefused")
    assert "TrustPolicy" in message
    assert "edgemodel/operator" in message

    trust_the_image_of_jobs(volume.site, tmp_path)
    volume.wait(name, "it is built in the end", lambda status: is_true(status, "Signed"))
    volume.delete(name)


def test_a_model_on_a_volume_is_built_in_a_job_and_answers(trusted: Volume, story: Story) -> None:
    name, site = "from-volume", trusted.site
    site.apply(trusted.edge_model(name, story.versions["1"]))

    status = trusted.wait(name, "it is ready", lambda seen: is_true(seen, "Ready"))
    assert status["version"] == "1"
    service = site.get("service", name, NAMESPACE)
    picture = story.pictures[0]
    code, answer = site.ask(trusted.node, service, name, json_request([picture]), {})
    assert code == 200
    assert orientation_of(answer)[0] == picture.orientation

    (job,), (pod,) = trusted.jobs(name), trusted.jobs(name, "pods")
    assert job["status"]["succeeded"] == 1
    assert job["metadata"]["ownerReferences"][0]["name"] == name
    assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == FIELD_MANAGER
    assert pod["spec"]["nodeName"] == trusted.node
    assert pod["spec"]["containers"][0]["image"] == site.images["operator"]
    assert '"progress"' in log_of(site.cluster, pod)


def test_a_secret_is_in_no_object_and_in_no_log(trusted: Volume, story: Story) -> None:
    name, cluster = "secretive", trusted.site.cluster
    trusted.site.apply(trusted.edge_model(name, story.versions["1"]))
    trusted.wait(name, "it is signed", lambda status: is_true(status, "Signed"))

    (pod,) = trusted.jobs(name, "pods")
    kinds = "jobs,pods,events,configmaps,edgemodels"
    shown = cluster.kubectl("get", kinds, "--namespace", NAMESPACE, "-o", "yaml") + log_of(cluster, pod)
    assert LOGIN in shown
    for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode().rstrip("=")):
        assert secret not in shown


def log_of(cluster: Cluster, pod: Json) -> str:
    """Give the log of a pod."""
    return cluster.kubectl("logs", pod["metadata"]["name"], "--namespace", NAMESPACE)


def missing_file(spec: Json) -> None:
    spec["model"]["source"]["pvc"]["path"] = "line/absent.onnx"


def missing_claim(spec: Json) -> None:
    spec["model"]["source"]["pvc"]["claimName"] = "absent"


def unbound_claim(spec: Json) -> None:
    spec["model"]["source"]["pvc"]["claimName"] = LOST_CLAIM


def unconfigured_conversion(spec: Json) -> None:
    spec["model"]["convert"] = {"origin": "PyTorchExport"}


MISTAKES: dict[str, tuple[Callable[[Json], None], str, str, tuple[str, ...], bool]] = {
    "no-file": (missing_file, "SourceResolved", "SourceNotFound", ("line/absent.onnx",), False),
    "no-claim": (
        missing_claim,
        "SourceResolved",
        "ClaimNotFound",
        (f"PersistentVolumeClaim {NAMESPACE}/absent does not exist", "model.source.pvc.claimName"),
        True,
    ),
    "not-bound": (unbound_claim, "SourceResolved", "ClaimNotBound", (LOST_CLAIM,), False),
    "no-converter": (
        unconfigured_conversion,
        "Built",
        "ConverterNotConfigured",
        ("PyTorchExport", "builds.converters.PyTorchExport"),
        True,
    ),
}


def test_what_keeps_a_job_from_its_work_is_said_where_it_belongs(trusted: Volume, story: Story) -> None:
    version = story.versions["1"]
    trusted.site.apply(*(trusted.edge_model(name, version, case[0]) for name, case in MISTAKES.items()))

    for name, (_, kind, reason, words, person) in MISTAKES.items():
        message = trusted.wait_failure(name, kind, reason)
        for word in words:
            assert word in message, name
        status = trusted.site.get("edgemodel", name, NAMESPACE)["status"]
        assert is_true(status, "Stalled") is person, name

    # What is mended goes on.
    trusted.site.apply(trusted.edge_model("no-claim", version))
    trusted.wait("no-claim", "it is signed after all", lambda status: is_true(status, "Signed"))
    for name in MISTAKES:
        trusted.delete(name)


def test_in_a_namespace_that_the_chart_does_not_name_no_job_is_made(trusted: Volume, story: Story) -> None:
    def without_secret(spec: Json) -> None:
        del spec["image"]["pullSecrets"]

    document = trusted.edge_model("forbidden", story.versions["1"], without_secret)
    document["metadata"]["namespace"] = FORBIDDEN
    trusted.site.apply(document)

    model = trusted.site.wait_model(
        "forbidden",
        FORBIDDEN,
        "the operator may not",
        lambda status: condition(status, "Built").get("reason") == "JobRefused",
    )

    assert "`modelNamespaces`" in condition(model["status"], "Built")["message"]
    trusted.site.cluster.kubectl("delete", "edgemodel", "forbidden", "--namespace", FORBIDDEN)


def test_deleting_the_model_deletes_its_job_in_the_middle_of_the_work(trusted: Volume, story: Story) -> None:
    name = "deleted"
    trusted.site.apply(trusted.edge_model(name, story.versions["1"]))
    with held_build(trusted.site):
        assert len(trusted.jobs(name)) == 1

        trusted.delete(name)

    assert trusted.jobs(name) == []


def test_a_new_version_deletes_the_job_of_the_old_one(trusted: Volume, story: Story) -> None:
    name = "changed"
    trusted.site.apply(trusted.edge_model(name, story.versions["1"]))
    with held_build(trusted.site):
        (old,) = trusted.jobs(name)

        trusted.site.apply(trusted.edge_model(name, story.versions["2"]))
        trusted.site.wait(
            "the Job of the old version is gone",
            lambda: {"jobs": [job["metadata"]["uid"] for job in trusted.jobs(name)]},
            lambda seen: old["metadata"]["uid"] not in seen["jobs"],
            60,
        )

    status = trusted.wait(name, "version 2 is ready", lambda seen: is_true(seen, "Ready"))
    assert status["version"] == "2"
    trusted.delete(name)


def test_a_killed_operator_finds_its_job_again(trusted: Volume, story: Story) -> None:
    name = "survivor"
    trusted.site.apply(trusted.edge_model(name, story.versions["1"]))
    with held_build(trusted.site):
        (before,) = trusted.jobs(name)

        kill_operator(trusted.site)

        trusted.site.wait(
            "the operator is back",
            lambda: trusted.site.get("deployment", "edgemodel-operator", SYSTEM),
            lambda seen: seen["status"].get("readyReplicas") == 1,
        )

    status = trusted.wait(name, "it is ready", lambda seen: is_true(seen, "Ready"))
    (after,) = trusted.jobs(name)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["succeeded"] == 1
    assert status["images"][0]["image"].startswith(f"{trusted.site.cluster.registry}/models/{name}")
    trusted.delete(name)


def test_too_little_memory_is_named_with_what_raises_it(trusted: Volume, story: Story) -> None:
    name, site = "hungry", trusted.site
    builds = {
        **site.values()["builds"],
        "resources": {"limits": {"memory": "24Mi"}, "requests": {"memory": "24Mi"}},
    }
    Site(site.cluster, site.images, **{**site.values(), "builds": builds}).install()
    try:
        site.apply(trusted.edge_model(name, story.versions["1"]))
        status = trusted.wait(
            name, "memory is short", lambda seen: condition(seen, "Ready").get("reason") == "OutOfMemory"
        )
    finally:
        site.install()

    assert is_true(status, "Stalled")
    message = condition(status, "Ready")["message"]
    assert "24Mi" in message
    assert "`builds.resources.limits.memory`" in message
    # The limits are no part of what is built: the next try has those of the chart.
    trusted.wait(name, "it is signed after all", lambda seen: is_true(seen, "Signed"))
    trusted.delete(name)


async def test_a_line_as_long_as_answers_may_be_comes_back_whole_and_once(volume: Volume) -> None:
    site, name, length = volume.site, "talker", MAX_LINE_BYTES - 1
    program = f"print('first'); print('x' * {length}); print('last')"
    container = {
        "name": "build",
        "image": site.images["operator"],
        "command": ["/usr/bin/python3", "-c", program],
    }
    metadata = {"name": name, "namespace": SYSTEM}
    spec = {"restartPolicy": "Never", "nodeName": volume.node, "containers": [container]}
    site.cluster.kubectl("delete", "pod", name, "--namespace", SYSTEM, "--ignore-not-found")
    site.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    site.wait(
        "the pod has ended",
        lambda: site.get("pod", name, SYSTEM),
        lambda pod: pod["status"]["phase"] == "Succeeded",
        60,
    )

    lines = await read_log(site, name)
    assert [line.text for line in lines] == [b"first", b"x" * length, b"last"]
    assert [line.text for line in await read_log(site, name, lines[0].stamp)] == [b"x" * length, b"last"]
    site.cluster.kubectl("delete", "pod", name, "--namespace", SYSTEM)
