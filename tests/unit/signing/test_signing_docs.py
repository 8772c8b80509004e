"""What the pages say about verifying is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from edgemodel_operator.adapters.policy_check import check_policy
from edgemodel_operator.api.trustexception import TrustExceptionSpec
from edgemodel_operator.core.trust import Policy, parse_policy
from edgemodel_operator.signing import verify
from edgemodel_operator.signing.expressions import check_expression
from edgemodel_operator.signing.verdict import CHECKED, Reason

PROJECT = Path(__file__).parents[3]
SIGNING = (PROJECT / "docs/signing.md").read_text(encoding="utf-8")
POLICIES = (PROJECT / "docs/trust-policies.md").read_text(encoding="utf-8")
EXAMPLES = sorted((PROJECT / "examples").glob("trust-*.yaml"))


def test_the_page_the_code_and_the_steps_count_alike() -> None:
    numbers = list(CHECKED)
    assert numbers == list(range(1, 13))
    page = SIGNING.partition("## How an image is verified")[2].partition("Formats and objects")[0]
    assert [int(one) for one in re.findall(r"^(\d+)\. ", page, re.MULTILINE)] == numbers
    above = (verify.__doc__ or "").splitlines()
    assert [int(one.group(1)) for line in above if (one := re.match(r" ?(\d+)\. ", line))] == numbers


def test_every_reason_is_explained() -> None:
    table = SIGNING.partition("| reason | means |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([A-Z]\w+)`", table)) == set(Reason)


def test_the_expressions_on_the_page_can_be_used() -> None:
    expressions = re.findall(r"- expression: (.+)", POLICIES)
    assert len(expressions) == 3
    for expression in expressions:
        check_expression(yaml.safe_load(expression))


def test_the_examples_are_there() -> None:
    names = {path.stem for path in EXAMPLES}
    assert names >= {f"trust-policy-{kind}" for kind in ("threshold", "attestations", "keyless")}
    assert "trust-exception" in names


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_understood_and_could_work(example: Path) -> None:
    for document in yaml.safe_load_all(example.read_text(encoding="utf-8")):
        if document["kind"] == "TrustException":
            TrustExceptionSpec.model_validate(document["spec"])
            continue
        policy = parse_policy(document)
        assert isinstance(policy, Policy)
        assert check_policy(policy.spec) == ()
