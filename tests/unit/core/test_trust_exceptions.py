"""TrustExceptions: one must cover everything that refuses, here and now, or it does not count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.api.trustpolicy import Mode
from edgemodel_operator.core.exemption import Exemption, parse_exemption
from edgemodel_operator.core.trust import PolicyVerdict, judge

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
IMAGE = "registry.plant-a.local:5000/models/line"
DIGEST = f"sha256:{'a' * 64}"
PINNED = f"{IMAGE}@{DIGEST}"
SYSTEM = "edgemodel-system"
HOLDS = PolicyVerdict("ok", Mode.ENFORCE, trusted=True)
ONE, TWO = (
    PolicyVerdict(name, Mode.ENFORCE, trusted=False, missing="no signature") for name in ("one", "two")
)
SOFT = PolicyVerdict("soft", Mode.AUDIT, trusted=False, missing="no signature")


def raw_exception(name: str = "supplier", namespace: str = SYSTEM, **spec: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "images": [IMAGE],
        "namespaces": ["plant-a"],
        "expires": "2026-12-01T00:00:00Z",
        "reason": "until the supplier signs, see the ticket",
    }
    return {"metadata": {"name": name, "namespace": namespace}, "spec": fields | spec}


def exemption(**spec: Any) -> Exemption:
    parsed = parse_exemption(raw_exception(**spec), SYSTEM)
    assert parsed is not None
    return parsed


def allowed(
    *exceptions: Exemption, verdicts: tuple[PolicyVerdict, ...] = (ONE,), image: str = PINNED
) -> bool:
    return judge(image, "plant-a", verdicts, exceptions, NOW).allowed


def test_an_image_that_is_excused_is_admitted_with_a_warning_that_names_the_exception() -> None:
    judgement = judge(PINNED, "plant-a", [HOLDS, ONE], [exemption()], NOW)
    assert judgement.allowed
    assert judgement.exceptions == ("supplier",)
    (warning,) = judgement.warnings
    for part in ('TrustPolicy "one"', 'TrustException "supplier"', "2026-12-01", "until the supplier signs"):
        assert part in warning


def test_an_exception_that_is_not_needed_is_not_named() -> None:
    assert judge(PINNED, "plant-a", [HOLDS], [exemption()], NOW).exceptions == ()
    audited = judge(PINNED, "plant-a", [HOLDS, SOFT], [exemption()], NOW)
    assert audited.exceptions == ()
    assert "Audit mode" in audited.warnings[0]


def test_case_40_all_policies_must_hold_and_one_exception_must_cover_all_that_do_not() -> None:
    only_one, only_two = exemption(policies=["one"]), exemption(name="other", policies=["two"])
    assert allowed(only_one)
    assert not allowed(only_one, verdicts=(ONE, TWO))
    assert not allowed(only_one, only_two, verdicts=(ONE, TWO))
    assert allowed(exemption(policies=["one", "two", "three"]), verdicts=(HOLDS, ONE, TWO))
    assert allowed(exemption(), verdicts=(ONE, TWO))
    # A policy that only audits refuses nothing, and needs no excuse.
    assert allowed(only_one, verdicts=(ONE, SOFT))


def test_case_40_an_image_that_no_policy_matches_needs_an_exception_from_everything() -> None:
    assert allowed(exemption(), verdicts=())
    assert not allowed(exemption(policies=["one"]), verdicts=())


@pytest.mark.parametrize("namespace", ["plant-a", "", "edgemodel-system-2", "EDGEMODEL-SYSTEM"])
def test_case_40_exceptions_elsewhere_do_not_count(namespace: str) -> None:
    assert parse_exemption(raw_exception(namespace=namespace), SYSTEM) is None


@pytest.mark.parametrize(
    "change",
    [
        {"images": []},
        {"images": "x"},
        {"namespaces": []},
        {"expires": "soon"},
        {"expires": "2026-12-01T00:00:00"},
        {"reason": ""},
        {"everything": True},
    ],
)
def test_case_40_an_exception_that_is_not_understood_excuses_nothing(change: dict[str, Any]) -> None:
    assert parse_exemption(raw_exception(**change), SYSTEM) is None
    assert parse_exemption({"metadata": {"name": "x", "namespace": SYSTEM}}, SYSTEM) is None
    assert parse_exemption({}, SYSTEM) is None


def test_case_40_an_exception_with_a_field_beside_its_spec_excuses_nothing() -> None:
    assert parse_exemption(raw_exception(), SYSTEM) is not None
    assert parse_exemption(raw_exception() | {"policies": ["tools"]}, SYSTEM) is None


@pytest.mark.parametrize(
    ("expires", "want"),
    [
        ("2026-11-21T12:00:01Z", True),
        ("2026-11-21T13:00:01+01:00", True),
        ("2026-11-21T12:00:00Z", False),
        ("2026-11-21T12:30:00+01:00", False),
        ("2020-01-01T00:00:00Z", False),
        ("2027-02-19T12:00:00Z", True),
        ("2027-02-19T12:00:01Z", False),
        ("9999-01-01T00:00:00Z", False),
    ],
)
def test_an_exception_counts_until_its_end_which_is_at_most_ninety_days_ahead(
    expires: str, want: bool
) -> None:
    assert allowed(exemption(expires=expires)) is want


def test_without_a_time_no_exception_counts() -> None:
    assert not judge(PINNED, "plant-a", [ONE], [exemption()]).allowed


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"images": ["registry.plant-a.local:5000/**"]}, True),
        ({"images": [PINNED]}, True),
        ({"images": [f"{IMAGE}@sha256:{'b' * 64}"]}, False),
        ({"images": ["registry.plant-a.local:5000/*"]}, False),
        ({"images": ["registry.plant-b.local:5000/**"]}, False),
        ({"namespaces": ["plant-*"]}, True),
        ({"namespaces": ["*"]}, True),
        ({"namespaces": ["plant-b"]}, False),
        ({"namespaces": ["plant"]}, False),
    ],
)
def test_an_exception_is_about_images_and_namespaces(change: dict[str, Any], want: bool) -> None:
    assert allowed(exemption(**change)) is want


def test_a_tag_beside_the_digest_changes_nothing_and_a_tag_alone_has_no_digest() -> None:
    by_digest = exemption(images=[PINNED])
    assert allowed(by_digest, image=f"{IMAGE}:latest@{DIGEST}")
    assert not allowed(by_digest, image=f"{IMAGE}:latest")
    assert not allowed(exemption(images=["**"]), image="not an image")


def test_where_no_namespace_is_known_an_exception_counts_wherever_it_holds() -> None:
    assert judge(PINNED, None, [ONE], [exemption()], NOW).allowed
    assert not judge(PINNED, None, [ONE], [exemption(images=["other.local/**"])], NOW).allowed
    assert "in namespace" not in judge(PINNED, None, []).refusals[0]


def test_the_first_by_name_is_named() -> None:
    judgement = judge(PINNED, "plant-a", [ONE], [exemption(name="b"), exemption(name="a")], NOW)
    assert judgement.exceptions == ("a",)


POLICIES = st.sampled_from(["p", "q", "r"])
VERDICTS = st.lists(
    st.builds(
        PolicyVerdict,
        policy=POLICIES,
        mode=st.sampled_from(Mode),
        trusted=st.booleans(),
        missing=st.just("x"),
    ),
    max_size=4,
    unique_by=lambda verdict: verdict.policy,
)
EXEMPTIONS = st.lists(
    st.builds(
        lambda policies, hours, namespace: exemption(
            policies=sorted(policies),
            expires=(NOW + timedelta(hours=hours)).isoformat(),
            namespaces=[namespace],
        ),
        st.sets(POLICIES),
        st.integers(-2, 2),
        st.sampled_from(["plant-a", "plant-b"]),
    ),
    max_size=3,
)


@given(VERDICTS, EXEMPTIONS)
def test_exceptions_allow_exactly_what_one_of_them_covers_whole(
    verdicts: list[PolicyVerdict], exceptions: list[Exemption]
) -> None:
    refusing = {one.policy for one in verdicts if not one.trusted and one.mode is Mode.ENFORCE}
    live = [
        set(one.spec.policies)
        for one in exceptions
        if one.spec.end > NOW and "plant-a" in one.spec.namespaces
    ]
    if verdicts:
        want = not refusing or any(not covered or refusing <= covered for covered in live)
    else:
        want = any(not covered for covered in live)
    judgement = judge(PINNED, "plant-a", verdicts, exceptions, NOW)
    assert judgement.allowed is want
    assert len(judgement.exceptions) == (want and bool(refusing or not verdicts))
