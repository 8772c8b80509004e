"""The first model of the README asks for nothing that its file and two commands do not bring."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import yaml

from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.trustpolicy import TrustPolicySpec
from edgemodel_operator.core.trust import Policy, matching_policies

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "examples/edgemodel-quickstart.yaml").read_text()
PLACEHOLDER = "registry.example.com"


def objects(text: str = EXAMPLE) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_it_runs_on_any_node_without_an_object_of_somebody_else() -> None:
    spec = EdgeModelSpec.model_validate(objects()["EdgeModel"]["spec"])
    assert [target.accelerator for target in spec.targets] == ["cpu"]
    assert spec.health.golden is None
    assert not spec.placement.node_selector
    assert not spec.image.pull_secrets
    assert spec.image.push_secret is None


def test_its_model_lies_beside_it() -> None:
    found = objects()
    source = EdgeModelSpec.model_validate(found["EdgeModel"]["spec"]).model.source.config_map
    entries = found["ConfigMap"]
    assert source is not None
    assert source.name == entries["metadata"]["name"]
    model = base64.b64decode(entries["binaryData"][source.key], validate=True)
    assert len(model) == 105
    # Tried with the server: it gives the answer that the README shows.
    assert (
        hashlib.sha256(model).hexdigest()
        == "ae1f8d00812cf08ddba78e004ce53895d4753c1d97c85a044af5187ba4e52cb5"
    )


def test_its_policy_covers_its_image_when_the_placeholder_is_replaced() -> None:
    found = objects(EXAMPLE.replace(PLACEHOLDER, "registry.plant-a.local:5000"))
    model = found["EdgeModel"]
    policy = Policy("first-models", TrustPolicySpec.model_validate(found["TrustPolicy"]["spec"]))
    repository = model["spec"]["image"]["repository"]
    assert repository.startswith("registry.plant-a.local:5000/")
    assert matching_policies([policy], repository, model["metadata"]["namespace"]) == (policy,)


def test_each_place_to_replace_is_marked() -> None:
    given = [line for line in EXAMPLE.splitlines() if PLACEHOLDER in line and not line.startswith("#")]
    assert len(given) == 2
    assert all("# REPLACE" in line for line in given)


def test_the_commands_of_the_readme_name_files_that_exist() -> None:
    install = README.partition("## Install")[2].partition("## Read on")[0]
    commands = [line.split() for line in install.splitlines() if line.strip().startswith(("kubectl", "sed"))]
    named = {word for words in commands for word in words if word.startswith("examples/")}
    assert named >= {"examples/namespace.yaml", "examples/edgemodel-quickstart.yaml"}
    assert all((ROOT / name).is_file() for name in named)
