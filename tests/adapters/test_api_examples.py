"""Every example is taken by a real API server, as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.base import Cluster
from edgemodel_operator.api.names import GROUP as OUR_GROUP
from support.own_group import GROUP, NAMESPACE, Json, apply

pytestmark = pytest.mark.needs("api")

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def documents(example: Path) -> list[Json]:
    """Read the documents of an example, moved to the group and namespace of these tests."""
    found: list[Json] = list(yaml.safe_load_all(example.read_text()))
    for document in found:
        document["apiVersion"] = document["apiVersion"].replace(OUR_GROUP, GROUP)
        if document["metadata"].get("namespace"):
            document["metadata"]["namespace"] = NAMESPACE
    return found


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"edgemodel-http", "trust-policy", "namespace"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_applied(api: Cluster, example: Path) -> None:
    for document in documents(example):
        name = document["metadata"]["name"]
        assert apply(api, document, "--dry-run=server")["metadata"]["name"] == name
