"""Malformed policies and exceptions are refused at apply, and every change is described."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.admission.review import InvalidReview
from edgemodel_operator.admission.trust_objects import Change, check_change, parse_change
from edgemodel_operator.api.trustpolicy import TrustPolicySpec
from support.admission import NOW, OWN_NAMESPACE, PEM


def policy_spec(**spec: Any) -> dict[str, Any]:
    return {"images": ["**"], "authorities": [{"name": "plant", "keys": [{"data": PEM}]}]} | spec


def exception_spec(**spec: Any) -> dict[str, Any]:
    values = {"images": ["**"], "namespaces": ["plant-a"], "expires": "2026-12-01T00:00:00Z"}
    return values | {"reason": "the old gateway"} | spec


def review(spec: Any, old: Any = None, *, plural: str = "trustpolicies", **request: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "uid": "u-1",
        "operation": "CREATE" if old is None else "UPDATE",
        "resource": {"group": "edgemodel.dev", "version": "v1alpha1", "resource": plural},
        "name": "plant",
        "userInfo": {"username": "kim"},
        "object": {"metadata": {"name": "plant", "uid": "o-1"}, "spec": spec},
    }
    if old is not None:
        values["oldObject"] = {"metadata": {"name": "plant", "uid": "o-1"}, "spec": old}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": values | request,
    }


def exception_review(spec: Any, namespace: str = OWN_NAMESPACE, **request: Any) -> dict[str, Any]:
    return review(spec, plural="trustexceptions", namespace=namespace, **request)


def no_problem(_: TrustPolicySpec) -> tuple[str, ...]:
    return ()


def problems(document: dict[str, Any], check: Any = no_problem) -> tuple[str, ...]:
    return check_change(parse_change(document), OWN_NAMESPACE, check, NOW)


def test_a_good_policy_and_a_good_exception_pass() -> None:
    assert problems(review(policy_spec())) == ()
    assert problems(exception_review(exception_spec())) == ()


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        (policy_spec(quorum=2), "spec.quorum"),
        (policy_spec(images=[]), "spec.images"),
        (policy_spec(mode="Off"), "spec.mode"),
        (policy_spec(threshold=2), "more authorities than the policy names"),
        (policy_spec(authorities=[{"name": "plant"}]), "`keys` or `keyless`"),
        (None, "spec"),
    ],
)
def test_case_40g_a_policy_that_is_not_understood_is_refused(spec: Any, want: str) -> None:
    (sentence,) = problems(review(spec))
    assert sentence.startswith("the policy cannot be understood: ")
    assert want in sentence


def test_case_40h_what_no_schema_can_say_is_asked_of_the_check() -> None:
    def check(spec: TrustPolicySpec) -> tuple[str, ...]:
        return (f"{spec.authorities[0].name} has no usable key", "and an expression does not compile")

    assert problems(review(policy_spec()), check) == (
        "plant has no usable key",
        "and an expression does not compile",
    )


@pytest.mark.parametrize("document", [review(policy_spec()), exception_review(exception_spec())])
def test_a_field_beside_the_spec_is_refused_when_it_is_written(document: dict[str, Any]) -> None:
    document["request"]["object"]["policies"] = ["tools"]
    (sentence,) = problems(document)
    assert "cannot be understood: policies: there is no such field here" in sentence
    # What is stored already does not keep a finalizer from going.
    document["request"] |= {"operation": "UPDATE", "oldObject": document["request"]["object"]}
    assert problems(document) == ()
    bare = {name: value for name, value in document["request"]["object"].items() if name != "policies"}
    document["request"]["oldObject"] = bare
    assert problems(document) != ()


@pytest.mark.parametrize(
    ("spec", "namespace", "want"),
    [
        (exception_spec(), "plant-a", "count only in namespace edgemodel-system, in plant-a it would do"),
        (exception_spec(expires="2026-11-21T12:00:00Z"), OWN_NAMESPACE, "it is over already"),
        (exception_spec(expires="2026-11-21T12:30:00+01:00"), OWN_NAMESPACE, "it is over already"),
        (
            exception_spec(expires="2027-03-01T00:00:00Z"),
            OWN_NAMESPACE,
            "write 2027-02-19T12:00:00Z or earlier",
        ),
        (exception_spec(expires="soon"), OWN_NAMESPACE, "spec.expires"),
        (exception_spec(expires="2026-12-01T00:00:00"), OWN_NAMESPACE, "spec.expires"),
        (exception_spec(reason=""), OWN_NAMESPACE, "spec.reason"),
        (exception_spec(namespaces=[]), OWN_NAMESPACE, "spec.namespaces"),
        (exception_spec(until="x"), OWN_NAMESPACE, "spec.until"),
    ],
)
def test_case_40i_exceptions_that_could_not_count_are_refused(spec: Any, namespace: str, want: str) -> None:
    (sentence,) = problems(exception_review(spec, namespace))
    assert want in sentence


def test_nobody_is_kept_from_deleting_or_from_removing_a_finalizer() -> None:
    over = exception_spec(expires="2020-01-01T00:00:00Z")
    old = {"metadata": {"name": "plant"}, "spec": over}
    assert problems(exception_review(None, operation="DELETE", object=None, oldObject=old)) == ()
    assert problems(exception_review(over, operation="UPDATE", oldObject=old)) == ()
    broken = policy_spec(quorum=2)
    assert problems(review(broken, broken)) == ()


def test_a_change_says_who_changed_what_and_how() -> None:
    change = parse_change(review(policy_spec(mode="Audit", acceptCopies=True), policy_spec(mode="Enforce")))
    assert change == Change(
        uid="u-1",
        operation="UPDATE",
        kind="TrustPolicy",
        namespace="",
        name="plant",
        user="kim",
        dry_run=False,
        content={"spec": policy_spec(mode="Audit", acceptCopies=True)},
        content_unchanged=False,
        changes=("acceptCopies: none → true", 'mode: "Enforce" → "Audit"'),
    )
    assert change.subject == "TrustPolicy plant"


def test_a_change_is_described_in_bounds() -> None:
    many = {f"field-{number}": "x" * 1000 for number in range(100)}
    change = parse_change(review(many))
    assert len(change.changes) == 1
    assert len(change.changes[0]) < 300
    change = parse_change(review(many, {}))
    assert len(change.changes) == 32


@pytest.mark.parametrize(
    "request_",
    [
        {"resource": {"group": "", "resource": "pods"}},
        {"resource": {"group": "edgemodel.dev", "resource": "edgemodels"}},
        {"operation": "CONNECT"},
        {"object": None},
        {"object": {}},
        {"operation": "UPDATE"},
        {"operation": "DELETE"},
        {"userInfo": None},
        {"uid": None},
    ],
)
def test_what_is_no_change_of_trust_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(InvalidReview):
        parse_change(review(policy_spec(), **request_))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["trustpolicies", "trustexceptions"]),
    st.sampled_from(["CREATE", "UPDATE", "DELETE"]),
    st.fixed_dictionaries({}, optional={"spec": _JSON, "metadata": _JSON}) | _JSON,
    st.fixed_dictionaries({}, optional={"spec": _JSON, "metadata": _JSON}) | _JSON,
)
def test_any_change_is_refused_or_described(plural: str, operation: str, new: Any, old: Any) -> None:
    document = review(
        None, plural=plural, operation=operation, object=new, oldObject=old, namespace=OWN_NAMESPACE
    )
    try:
        change = parse_change(document)
    except InvalidReview:
        return
    found = check_change(change, OWN_NAMESPACE, no_problem, NOW)
    assert bool(found) == (operation != "DELETE" and not change.content_unchanged)
