"""One plant for all tests here: the product installed by its chart, and what the user of the demo adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.base import Cluster
from demo import objects
from demo.report import Report
from demo.site import SIGNING_KEY, SYSTEM, Site, build_images
from demo.story import STEPS, Story

Json = dict[str, Any]
BUILDS = ("build-jobs", "build-dockerfiles")
"""The namespaces in which the operator may run Jobs."""
REFUSING_REGISTRY = "10.199.0.1:5403"
"""Where a test puts a registry that refuses every push."""


@pytest.fixture(scope="session")
def story(edge_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Install the product as it is in this working tree, and give the story of the demo on top of it."""
    images = build_images(edge_cluster)
    site = Site(
        edge_cluster,
        images,
        sources={"timeoutSeconds": 10, "maxBytes": 64 * 1024**2},
        operator={"nodeSelector": {"kubernetes.io/arch": "amd64"}, "maxConcurrentBuilds": 4},
        registries={"plainHttp": [edge_cluster.registry, REFUSING_REGISTRY]},
        modelNamespaces=list(BUILDS),
        # On the emulated node exporters would only be slow.
        builds={
            "buildah": {"image": images["buildah"]},
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
        },
    )
    story = Story(site, Report(STEPS), tmp_path_factory.mktemp("models"))
    # The chart makes roles in the namespaces that it names.
    strict, open_ = BUILDS
    site.apply(objects.namespace(strict))
    site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": open_}})
    story.prepare()
    return story


@pytest.fixture(scope="session")
def site(story: Story) -> Site:
    """Give the commands of a platform engineer at the prepared plant."""
    return story.site


@pytest.fixture
def signing_key(site: Site) -> Iterator[Json]:
    """Give the signing key's Secret as it can be applied again; it is in place when the test ends."""
    found = site.get("secret", SIGNING_KEY, SYSTEM)
    metadata = {name: found["metadata"][name] for name in ("name", "namespace")}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": found["type"], "metadata": metadata}
    secret["data"] = found["data"]
    yield secret
    site.apply(secret)
