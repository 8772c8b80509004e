"""The real cosign, of both lines, judges what the operator signed, from inside the plant's network."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from cluster.base import Cluster
from cluster.tools import tool
from demo import objects
from demo.site import PUBLIC_KEY, SYSTEM, Site
from demo.story import Story

pytestmark = pytest.mark.needs("pods", "registry", "arm64", "cut")


@pytest.fixture(scope="module")
def signed(story: Story, site: Site, edge_cluster: Cluster) -> list[str]:
    """Give the index that the operator built for the first version, and its children, by digest."""
    story.ensure("1")
    image = site.get("edgemodel", objects.NAME, objects.NAMESPACE)["status"]["images"][0]["image"]
    name, _, digest = image.partition("@")
    repository = name.removeprefix(f"{edge_cluster.registry}/")
    index = json.loads(
        edge_cluster.run_in_cp(
            ["curl", "-sSf", "-H", "Accept: application/vnd.oci.image.index.v1+json",
             f"http://{edge_cluster.registry}/v2/{repository}/manifests/{digest}"]
        )
    )  # fmt: skip
    children = [f"{name}@{child['digest']}" for child in index["manifests"]]
    assert len(children) == 2
    return [image, *children]


@pytest.fixture(scope="module")
def key(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the public key as a user would save it."""
    path = tmp_path_factory.mktemp("cosign") / "cosign.pub"
    data = site.get("secret", PUBLIC_KEY, SYSTEM)["data"]["cosign.pub"]
    path.write_bytes(base64.b64decode(data))
    return path


@pytest.mark.parametrize("version", ["cosign-v2", "cosign-v3"])
def test_cosign_verifies_the_index_and_every_platform(
    version: str, signed: list[str], key: Path, edge_cluster: Cluster
) -> None:
    cosign = str(tool(version))
    # The older line wants a trusted root, if only an empty one, as soon as a bundle lies beside the image.
    root = key.parent / f"{version}-root.json"
    options: list[str] = []
    if version == "cosign-v2":
        edge_cluster.run_in_cp([cosign, "trusted-root", "create", "--out", str(root)])
        options = ["--trusted-root", str(root)]
    for image in signed:
        said = edge_cluster.run_in_cp(
            [cosign, "verify", "--key", str(key), "--insecure-ignore-tlog=true", "--allow-http-registry=true",
             *options, image]
        )  # fmt: skip
        assert image.partition("@")[2] in said
