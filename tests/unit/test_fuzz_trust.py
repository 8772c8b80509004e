"""A short, fixed slice of `make fuzz-trust`; what a longer run finds is kept here."""

from __future__ import annotations

import json

import pytest

from fuzz.engine import run
from fuzz.groups import GROUPS

TARGETS = GROUPS["trust"].targets


@pytest.mark.parametrize("name", TARGETS)
def test_every_reader_stands_a_slice_of_noise(name: str) -> None:
    outcome = run(TARGETS[name](), count=4000, seed=2)
    assert outcome.finding is None, outcome.finding
    assert outcome.inputs == 4000
    assert len(outcome.kinds) > 9  # noise that is all refused for one reason proves nothing


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_read(name: str) -> None:
    target = TARGETS[name]()
    kinds = {target.check(seed) for seed in target.seeds}
    assert any(kind == "opened" or kind[0] in {"read", "CREATE", "UPDATE"} for kind in kinds if kind)  # type: ignore[index]


def test_an_overlooked_image_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemodel_operator.admission import review

    monkeypatch.setattr(review, "_CONTAINER_LISTS", ("containers", "ephemeralContainers"))
    outcome = run(TARGETS["review"](), count=2000, seed=2)
    assert outcome.finding is not None
    assert "overlooked" in str(outcome.finding.error)


def test_a_second_spelling_that_changes_the_meaning_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemodel_operator.signing import bundle, strict_json

    def exactly(parent: dict[str, object], name: str, what: str) -> object:
        return parent.get(name)

    for module in (strict_json, bundle):
        monkeypatch.setattr(module, "member", exactly)
    target = TARGETS["statement"]()
    statement = json.loads(target.seeds[0])
    statement["PredicateType"] = "https://slsa.dev/provenance/v1"
    with pytest.raises(AssertionError, match="others"):
        target.check(json.dumps(statement).encode())
