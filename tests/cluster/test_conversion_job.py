"""A PyTorch program converted by the real exporter in a Job, and served: right answers from a node."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.base import Cluster
from demo import objects
from demo.site import ROOT, Site, condition, is_true
from demo.story import Story
from support.converters import make_environment, make_models

# The first run on a machine fetches and packs the exporters.
pytestmark = [pytest.mark.needs("pods", "registry", "cut"), pytest.mark.timeout(1800)]

Json = dict[str, Any]
NAMESPACE = "build-dockerfiles"
"""A namespace in which the operator may run Jobs, and in which all images run."""
PICTURE = [number / 768 for number in range(768)]


def build_converter(cluster: Cluster, folder: Path) -> str:
    """Build the image with PyTorch, push it, and give it by digest as nodes name it."""
    lock = folder / "images.json"
    prefix = f"{cluster.registry_on_host}/edgemodel"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "imagebuild",
            "--only",
            "convert-pytorch",
            "--push",
            prefix,
            "--out",
            str(lock),
        ],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "hack"), str(ROOT / "operator")))},
    )
    image: str = json.loads(lock.read_text())["convert-pytorch"]
    return image.replace(cluster.registry_on_host, cluster.registry, 1)


@pytest.fixture(scope="module")
def converters(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Configure the image that converts; the chart is as before when the tests end."""
    image = build_converter(site.cluster, tmp_path_factory.mktemp("converter"))
    converters = {"PyTorchExport": image, "TorchScript": image}
    builds = {**site.values()["builds"], "converters": converters}
    Site(site.cluster, site.images, **{**site.values(), "builds": builds}).install()
    yield
    site.cluster.kubectl(
        "delete", "edgemodels", "--all", "--namespace", NAMESPACE, "--timeout", "60s", timeout_s=70
    )
    site.install()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with models of PyTorch."""
    folder = tmp_path_factory.mktemp("pytorch")
    make_models("pytorch", make_environment("pytorch"), folder)
    return folder


def edge_model(site: Site, story: Story, name: str, file: Path, conversion: Json) -> Json:
    """Give an EdgeModel of a file that is to be converted."""
    cluster = site.cluster
    document = objects.edge_model(story.versions["1"], "", cluster.registry, name)
    document["metadata"]["namespace"] = NAMESPACE
    spec = document["spec"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    http = {"url": f"{cluster.serve_files(file.parent)}/{file.name}", "sha256": digest, "insecure": True}
    spec["model"] = {"format": "ONNX", "version": "1", "source": {"http": http}, "convert": conversion}
    # A word of this run's own: nothing of an earlier one is found there.
    spec["image"] = {"repository": f"{cluster.registry}/models/{name}-{secrets.token_hex(4)}"}
    spec["placement"] = {"nodeSelector": {"kubernetes.io/hostname": cluster.nodes()[0]}}
    spec["health"] = {"probationSeconds": 0}
    return document


@pytest.mark.usefixtures("converters")
def test_a_pytorch_program_is_converted_in_a_job_and_answers(site: Site, story: Story, models: Path) -> None:
    name, node = "from-pytorch", site.cluster.nodes()[0]
    conversion = {"origin": "PyTorchExport"}
    site.apply(edge_model(site, story, name, models / "classifier.pt2", conversion))

    model = site.wait_model(name, NAMESPACE, "it is ready", lambda seen: is_true(seen, "Ready"), 400)

    (tensor,) = model["status"]["model"]["inputs"]
    question = {"name": tensor["name"], "shape": [1, 3, 16, 16], "datatype": "FP32", "data": PICTURE}
    body = json.dumps({"inputs": [question]}).encode()
    code, answer = site.ask(node, site.get("service", name, NAMESPACE), name, body, {})
    assert code == 200, answer
    (output,) = json.loads(answer)["outputs"]
    assert output["shape"] == [1, 4]
    assert sum(output["data"]) == pytest.approx(1)


@pytest.mark.usefixtures("converters")
def test_what_is_no_model_is_refused_in_the_job_with_the_reason(
    site: Site, story: Story, models: Path
) -> None:
    name = "no-module"
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 16, 16]}]
    conversion = {"origin": "TorchScript", "inputs": inputs}
    site.apply(edge_model(site, story, name, models / "trap.pt", conversion))

    model = site.wait_model(
        name, NAMESPACE, "it is refused", lambda seen: is_true(seen, "Stalled"), timeout_s=200
    )

    assert condition(model["status"], "Ready")["reason"] == "ConversionFailed"
    assert "TorchScript" in condition(model["status"], "Ready")["message"]
    assert not (models / "sprung").exists()
