"""A Dockerfile built by Buildah in a Job, without daemon or root, and a model served on top of it."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.base import Cluster
from demo import objects
from demo.pictures import json_request, orientation_of
from demo.site import Site, condition, is_true
from demo.story import Story
from edgemodel_operator.api.names import model_key

pytestmark = pytest.mark.needs("pods", "registry", "cut")

Json = dict[str, Any]
NAMESPACE = "build-dockerfiles"
STRICT = "build-jobs"
"""A namespace that keeps the restricted standard for pods."""
DOCKERFILE = """\
ARG RUNTIME_IMAGE
FROM $RUNTIME_IMAGE
USER 0
COPY greeting.txt /opt/greeting.txt
RUN ["/usr/bin/python3", "-c", "open('/opt/made', 'w').write(open('/opt/greeting.txt').read())"]
ENV GREETING=made-in-the-plant
USER 65532:65532
"""


@dataclass(frozen=True)
class Plant:
    """Where Dockerfiles are built: a namespace that lets them run commands."""

    site: Site
    node: str
    run: str
    url: str
    """The folder in which contexts are served."""
    folder: Path

    def edge_model(self, story: Story, name: str, dockerfile: str, namespace: str = NAMESPACE) -> Json:
        """Give an EdgeModel whose runtime is made from a Dockerfile."""
        cluster = self.site.cluster
        document = objects.edge_model(story.versions["1"], story.url, cluster.registry, name)
        document["metadata"]["namespace"] = namespace
        spec = document["spec"]
        content = context({"Dockerfile": dockerfile, "greeting.txt": "hello"})
        (self.folder / f"{name}.tar").write_bytes(content)
        source = {
            "url": f"{self.url}/{name}.tar",
            "sha256": hashlib.sha256(content).hexdigest(),
            "insecure": True,
        }
        spec["image"] = {
            "repository": f"{cluster.registry}/models/{name}-{self.run}",
            "platforms": ["linux/amd64"],
            "builder": "Buildah",
            "dockerfile": {"context": {"http": source, "archive": {}}},
        }
        spec["placement"] = {"nodeSelector": {"kubernetes.io/hostname": self.node}}
        spec["health"] = {"probationSeconds": 0}
        return document

    def wait_failure(self, name: str, reason: str, namespace: str = NAMESPACE) -> str:
        """Wait until `Built` gives a reason, and give its message."""
        model = self.site.wait_model(
            name, namespace, reason, lambda seen: condition(seen, "Built").get("reason") == reason
        )
        return str(condition(model["status"], "Built")["message"])


def context(files: dict[str, str]) -> bytes:
    """Write a build context."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture(scope="module")
def plant(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Prepare the namespaces."""
    cluster = site.cluster
    strict = objects.namespace(STRICT)
    strict["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted"
    site.apply(strict)
    forget(cluster)
    folder = tmp_path_factory.mktemp("contexts")
    url = cluster.serve_files(folder)
    yield Plant(site, cluster.nodes()[0], secrets.token_hex(4), url, folder)
    forget(cluster)


def forget(cluster: Cluster) -> None:
    """Take away what this run, or one before, has made."""
    for name in (NAMESPACE, STRICT):
        cluster.kubectl(
            "delete", "edgemodels", "--all", "--namespace", name, "--timeout", "60s", timeout_s=70
        )


def test_a_model_on_a_runtime_of_a_dockerfile_is_built_and_answers(plant: Plant, story: Story) -> None:
    name, site = "from-dockerfile", plant.site
    site.apply(plant.edge_model(story, name, DOCKERFILE))

    status = site.wait_model(name, NAMESPACE, "it is ready", lambda seen: is_true(seen, "Ready"), 300)[
        "status"
    ]

    service = site.get("service", name, NAMESPACE)
    code, answer = site.ask(plant.node, service, name, json_request(story.pictures[:1]), {})
    assert code == 200
    assert orientation_of(answer)[0] == story.pictures[0].orientation
    assert "GREETING=made-in-the-plant" in config_of(site, status["images"][0]["image"])["config"]["Env"]
    selector = f"edgemodel.dev/build-of={model_key(NAMESPACE, name)}"
    (job,) = site.cluster.kubectl_json("get", "jobs", "--namespace", NAMESPACE, "--selector", selector)[
        "items"
    ]
    assert job["metadata"]["labels"]["edgemodel.dev/build-step"] == "runtime-amd64"
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == site.images["buildah"]
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in json.dumps(pod)


def config_of(site: Site, image: str) -> Json:
    """Read the configuration of the only platform of an image."""
    cluster = site.cluster
    name, _, digest = image.partition("@")
    repository = name.removeprefix(f"{cluster.registry}/")

    def read(path: str) -> Json:
        types = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        url = f"http://{cluster.registry}/v2/{repository}/{path}"
        document: Json = json.loads(cluster.run_in_cp(["curl", "-sSfL", "-H", f"Accept: {types}", url]))
        return document

    (child,) = read(f"manifests/{digest}")["manifests"]
    config = read(f"manifests/{child['digest']}")["config"]
    return read(f"blobs/{config['digest']}")


def test_a_command_that_fails_is_named_with_what_it_said(plant: Plant, story: Story) -> None:
    name = "bad-command"
    broken = DOCKERFILE.replace("open('/opt/greeting.txt').read()", "no_such_name")
    plant.site.apply(plant.edge_model(story, name, broken))

    message = plant.wait_failure(name, "DockerfileFailed")

    assert "no_such_name" in message
    assert "line 5" in message


def test_where_the_standard_for_pods_forbids_it_the_refusal_says_so(plant: Plant, story: Story) -> None:
    name = "strict"
    plant.site.apply(plant.edge_model(story, name, DOCKERFILE, STRICT))

    message = plant.wait_failure(name, "JobRefused", STRICT)

    assert "restricted" in message or "TrustPolicy" in message
