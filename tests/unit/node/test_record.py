"""What a node remembers: bounded, durable, and the same to the agent and to the client without it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.core.exemption import parse_exemption
from edgemodel_operator.core.trust import Policy, parse_policy
from edgemodel_operator.node import record as records
from edgemodel_operator.node.client import judge_alone
from edgemodel_operator.node.record import Fixed, Record, load_record, to_document, write_durably

HOST = "registry.plant-a.local:5000"
DIGEST = f"sha256:{'a' * 64}"
PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
FIXED = Fixed(pod="/pods/1", own=f"{HOST}/own@{DIGEST}", exempt=(f"{HOST}/base/*",), deny_unmatched=False)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


def raw_policy(name: str = "models", **spec: Any) -> dict[str, Any]:
    authorities = [{"name": "plant", "keys": [{"data": PEM}]}]
    return {
        "metadata": {"name": name},
        "spec": {"images": [f"{HOST}/models/**"], "authorities": authorities} | spec,
    }


def document(record: Record, fixed: Fixed = FIXED) -> dict[str, Any]:
    """Give what the client reads, by way of a file."""
    exceptions = (parse_exemption(raw, "s") for raw in record.exceptions)
    made = to_document(
        record, fixed, [parse_policy(raw) for raw in record.policies], [one for one in exceptions if one]
    )
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read


def known(record: Record, demand: str = "d") -> Record:
    """Let every policy of a record have a demand."""
    for raw in record.policies:
        policy = parse_policy(raw)
        if isinstance(policy, Policy):
            record.demands[policy.hash] = demand
    return record


def test_the_client_alone_believes_what_the_agent_kept() -> None:
    record = known(Record(policies=(raw_policy(),)))
    image = f"{HOST}/models/a/line@{DIGEST}"
    assert judge_alone(document(record), image, DIGEST, NOW)
    assert record.keep(image, "d")
    assert not record.keep(image, "d")
    assert not judge_alone(document(record), image, DIGEST, NOW)


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({}, False),
        ({"mode": "Audit"}, True),
        ({"namespaces": ["plant-a"]}, True),
        ({"namespaces": ["**"]}, False),
        ({"images": [f"{HOST}/other/*"]}, True),
        ({"unknownField": 1}, False),
        ({"unknownField": 1, "mode": "Audit"}, False),
        ({"images": 5}, False),
    ],
)
def test_the_client_alone_applies_the_policies_that_the_agent_does(
    spec: dict[str, Any], allowed: bool
) -> None:
    record = known(Record(policies=(raw_policy(**spec),)))
    assert (judge_alone(document(record), f"{HOST}/models/x", DIGEST, NOW) == "") is allowed


def test_the_client_alone_knows_exceptions_and_exemptions() -> None:
    spec = {
        "images": [f"{HOST}/models/x"],
        "namespaces": ["a"],
        "expires": "2026-12-01T00:00:00Z",
        "reason": "because of",
    }
    raw = {"metadata": {"name": "e", "namespace": "s"}, "spec": spec}
    record = known(Record(policies=(raw_policy(images=["**"]),), exceptions=(raw,)))
    assert not judge_alone(document(record), f"{HOST}/models/x", DIGEST, NOW)
    assert judge_alone(document(record), f"{HOST}/models/x", DIGEST, NOW + 20 * 86400)
    assert judge_alone(document(record), f"{HOST}/models/y", DIGEST, NOW)
    assert not judge_alone(document(record), f"{HOST}/base/y", DIGEST, NOW)
    assert not judge_alone(document(record), f"{HOST}/own", DIGEST, NOW)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = known(Record(policies=(raw_policy(),), exceptions=({"metadata": {"name": "x"}},)))
    record.keep("image", "d")
    write_durably(tmp_path / "record.json", json.dumps(document(record)).encode())
    assert load_record(tmp_path / "record.json") == record
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"version": 2}', '{"version": 1, "source": []}', "[" * 99999]
)
def test_a_file_that_is_no_record_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "record.json"
    assert load_record(path) is None
    path.write_text(content)
    assert load_record(path) is None


def test_verdicts_on_what_nobody_demands_any_more_are_forgotten() -> None:
    record = known(Record(policies=(raw_policy(),)), "new")
    record.keep("both", "old")
    record.keep("both", "new")
    record.keep("old", "old")
    record.prune()
    assert dict(record.verdicts) == {"both": ("new",)}


def test_what_was_never_demanded_holds_for_nothing() -> None:
    record = Record()
    record.keep("image", records.UNKNOWN_DEMAND)
    assert not record.holds("image", records.UNKNOWN_DEMAND)


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_oldest_verdicts_make_room(numbers: list[int]) -> None:
    record = Record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_IMAGES", 8)
        for number in numbers:
            record.keep(f"i{number}", "d")
    assert len(record.verdicts) <= 8
    assert not numbers or record.holds(f"i{numbers[-1]}", "d")
