"""The audit's judgement: what runs, held against policies and exceptions."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.core.audit import (
    Answers,
    Audit,
    Finding,
    FindingKey,
    PartQuestion,
    Question,
    Scope,
    Unknown,
    audit,
    questions,
)
from edgemodel_operator.core.audit_uses import ImageUse
from edgemodel_operator.core.exemption import Exemption, parse_exemption
from edgemodel_operator.core.trust import AnyPolicy, PolicyVerdict, mode_of, parse_policy
from edgemodel_operator.oci.reference import parse_reference

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
BEFORE = "2026-11-20T08:00:00Z"
REGISTRY = "registry.plant-a.local:5000"
A, B = (f"sha256:{letter * 64}" for letter in "ab")
LINE = f"{REGISTRY}/models/line@{A}"
PEM = "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n"


def policy(name: str = "models", images: str = f"{REGISTRY}/**", **spec: Any) -> AnyPolicy:
    key = {"name": "operator", "keys": [{"data": PEM}]}
    return parse_policy(
        {"metadata": {"name": name}, "spec": {"images": [images], "authorities": [key], **spec}}
    )


def exemption(**spec: Any) -> Exemption:
    written = {
        "images": [f"{REGISTRY}/**"],
        "namespaces": ["*"],
        "expires": (NOW + timedelta(days=7)).isoformat(),
        "reason": "the line stands still else",
        **spec,
    }
    raw = {"metadata": {"name": "for-now", "namespace": "edgemodel-system"}, "spec": written}
    found = parse_exemption(raw, "edgemodel-system")
    assert found is not None
    return found


def use(image: str = LINE, running: str = "", pod: str = "line-x", **parts: Any) -> ImageUse:
    values = {"namespace": "plant-a", "container": "containers[main]", "node": "edge-a", **parts}
    return ImageUse(pod=pod, image=image, running=running, **values)


def answer(
    *policies: AnyPolicy, image: str = LINE, trusted: bool = False, reason: str = "Unsigned"
) -> Answers:
    verdicts = {
        Question(parse_reference(image), one.name): PolicyVerdict(
            one.name, mode_of(one), trusted, "" if trusted else "it is not signed", "" if trusted else reason
        )
        for one in policies
    }
    return Answers(verdicts)


def scope(
    *policies: AnyPolicy,
    exemptions: tuple[Exemption, ...] = (),
    guarded: frozenset[str] = frozenset({"plant-a"}),
) -> Scope:
    return Scope(policies, exemptions, guarded, NOW)


def reasons(found: Audit, name: str = "models") -> list[str]:
    return [finding.reason for finding in found.policies[name].findings]


def test_case_36_a_pod_from_before_the_policy_is_found_with_reason_place_and_time() -> None:
    models = policy()
    found = audit([use()], scope(models), answer(models), {}).policies["models"]
    (finding,) = found.findings
    assert (finding.use, finding.reason, finding.message) == (use(), "Unsigned", "it is not signed")
    assert finding.since == "2026-11-21T12:00:00Z"
    assert found.images == 1


def test_a_trusted_image_is_no_finding() -> None:
    models = policy()
    found = audit([use()], scope(models), answer(models, trusted=True), {})
    assert (reasons(found), found.images, found.policies["models"].unknown) == ([], 1, ())


def test_every_policy_that_speaks_about_an_image_is_asked_and_no_other() -> None:
    models, strict = policy(), policy("strict", mode="Audit")
    other = policy("other", "elsewhere.plant-a.local/**")
    elsewhere = policy("elsewhere", namespaces=["plant-b"])
    everyone = [models, strict, other, elsewhere]
    asked, parts = questions([use(), use(pod="line-y")], everyone)
    assert {question.policy for question in asked} == {"models", "strict"}
    assert parts == frozenset()
    found = audit([use()], scope(*everyone), answer(models, strict), {})
    assert {name: len(one.findings) for name, one in found.policies.items()} == {
        "models": 1,
        "strict": 1,
        "other": 0,
        "elsewhere": 0,
    }
    assert found.policies["other"].images == 0


def test_what_a_registry_does_not_tell_is_unknown_and_never_untrusted() -> None:
    models = policy()
    unknown = Answers({Question(parse_reference(LINE), "models"): Unknown("the registry did not answer")})
    found = audit([use()], scope(models), unknown, {}).policies["models"]
    assert found.findings == ()
    assert found.unknown == (f"{LINE}: the registry did not answer",)


def test_what_was_found_before_stays_while_the_registry_is_away() -> None:
    models = policy()
    unknown = Answers({Question(parse_reference(LINE), "models"): Unknown("the registry did not answer")})
    before = Finding(use(), "Unsigned", "it is not signed", BEFORE)
    found = audit([use()], scope(models), unknown, {"models": {before.key: before}}).policies["models"]
    assert found.findings == (before,)
    assert found.unknown == ()


def test_a_question_that_nobody_answered_is_unknown() -> None:
    found = audit([use()], scope(policy()), Answers(), {}).policies["models"]
    assert (len(found.findings), len(found.unknown)) == (0, 1)


def test_a_policy_that_is_not_understood_finds_nothing_and_knows_nothing() -> None:
    broken = policy(extra="from a newer version")
    assert questions([use()], [broken]) == (frozenset(), frozenset())
    found = audit([use()], scope(broken), Answers(), {}).policies["models"]
    assert found.findings == ()
    assert "cannot be understood" in found.unknown[0]


def test_case_43_an_image_imported_by_hand_is_found_without_asking_a_registry() -> None:
    models = policy()
    by_hand = use(f"{REGISTRY}/models/line:1", B)
    assert questions([by_hand], [models]) == (frozenset(), frozenset())
    assert reasons(audit([by_hand], scope(models), Answers(), {})) == ["NotFromRegistry"]


def test_case_43_a_static_pod_is_found_as_such_with_what_is_wrong() -> None:
    models = policy()
    found = audit([use(static=True)], scope(models), answer(models), {})
    (finding,) = found.policies["models"].findings
    assert finding.reason == "StaticPod"
    assert finding.message.endswith("it is not signed")
    trusted = audit([use(static=True)], scope(models), answer(models, trusted=True), {})
    assert reasons(trusted) == []


@pytest.mark.parametrize(
    ("part", "expected", "unknown"),
    [(True, [], 0), (False, ["OtherImage"], 0), (Unknown("the registry did not answer"), [], 1)],
)
def test_what_runs_must_be_a_part_of_the_trusted_image(
    part: bool | Unknown, expected: list[str], unknown: int
) -> None:
    models = policy()
    running = use(running=f"{REGISTRY}/models/line@{B}")
    _, asked = questions([running], [models])
    question = PartQuestion(parse_reference(LINE), B, parse_reference(f"{REGISTRY}/models/line@{B}"))
    assert asked == {question}
    answers = Answers(answer(models, trusted=True).verdicts, {question: part})
    found = audit([running], scope(models), answers, {})
    assert (reasons(found), len(found.policies["models"].unknown)) == (expected, unknown)


def test_the_image_of_the_pod_is_judged_first_whatever_part_of_it_runs() -> None:
    models = policy()
    running = use(running=B)
    question = PartQuestion(parse_reference(LINE), B, None)
    answers = Answers(answer(models).verdicts, {question: True})
    assert reasons(audit([running], scope(models), answers, {})) == ["Unsigned"]


def test_an_exception_excuses_an_image_from_every_policy_that_refuses_or_from_none() -> None:
    models, strict = policy(), policy("strict")
    both = answer(models, strict)
    part = exemption(policies=["models"])
    halved = audit([use()], scope(models, strict, exemptions=(part,)), both, {})
    assert (reasons(halved), reasons(halved, "strict")) == (["Unsigned"], ["Unsigned"])
    whole = audit([use()], scope(models, strict, exemptions=(part, exemption())), both, {})
    assert (reasons(whole), reasons(whole, "strict")) == ([], [])


def test_an_exception_for_what_enforces_leaves_what_only_audits() -> None:
    models, watching = policy(), policy("watching", mode="Audit")
    found = audit(
        [use()],
        scope(models, watching, exemptions=(exemption(policies=["models"]),)),
        answer(models, watching),
        {},
    )
    assert (reasons(found), reasons(found, "watching")) == ([], ["Unsigned"])


def test_an_exception_that_is_over_excuses_nothing() -> None:
    models = policy()
    over = exemption(expires=(NOW - timedelta(seconds=1)).isoformat())
    assert reasons(audit([use()], scope(models, exemptions=(over,)), answer(models), {})) == ["Unsigned"]


def test_an_image_that_no_policy_covers_matters_in_guarded_namespaces_only() -> None:
    other = policy("other", "elsewhere.plant-a.local/**")
    uses = [use(), use(namespace="plant-b", pod="free")]
    assert audit(uses, scope(other), Answers(), {}).uncovered == (use(),)
    assert audit(uses, scope(other, exemptions=(exemption(),)), Answers(), {}).uncovered == ()


def test_case_67_after_a_rotation_the_digests_are_found_that_only_the_old_key_signed() -> None:
    """Pods run on; what the policy of now does not hold for is listed, and nothing else."""
    models = policy()
    renewed = f"{REGISTRY}/models/renewed@{B}"
    answers = Answers(
        {
            **answer(models, reason="UnknownKey").verdicts,
            **answer(models, image=renewed, trusted=True).verdicts,
        }
    )
    found = audit([use(), use(renewed, pod="new")], scope(models), answers, {})
    assert [(one.use.image, one.reason) for one in found.policies["models"].findings] == [
        (LINE, "UnknownKey")
    ]


# --- what holds of every audit ---------------------------------------------------------------------------

IMAGES = [
    *(f"{REGISTRY}/models/{name}@{digest}" for name in ("line", "press") for digest in (A, B)),
    f"{REGISTRY}/models/line:1",
    "nginx",
    "not an image!",
]
RUNNING = ["", A, B, f"{REGISTRY}/models/line@{A}", f"{REGISTRY}/models/press@{B}", "odd"]
USES = st.lists(
    st.builds(
        ImageUse,
        namespace=st.sampled_from(["plant-a", "plant-b"]),
        pod=st.sampled_from(["x", "y", "z"]),
        container=st.sampled_from(["containers[main]", "containers[side]", "volumes[data].image"]),
        node=st.just("edge-a"),
        image=st.sampled_from(IMAGES),
        running=st.sampled_from(RUNNING),
        static=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda one: (one.namespace, one.pod, one.container),  # a container runs one image
)
POLICIES = (
    policy(),
    policy("press", f"{REGISTRY}/models/press"),
    policy("all", "**", mode="Audit"),
    policy("broken", extra=1),
)
OUTCOMES = st.sampled_from([True, False, None])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[ImageUse], Scope, Answers]:
    uses = draw(USES)
    policies = draw(st.lists(st.sampled_from(POLICIES), unique=True))
    asked, parts = questions(uses, policies)
    verdicts: dict[Question, PolicyVerdict | Unknown] = {}
    for question in sorted(asked, key=str):
        trusted = draw(OUTCOMES)
        verdicts[question] = (
            Unknown("away")
            if trusted is None
            else PolicyVerdict(question.policy, mode_of(POLICIES[0]), trusted, "no", "Unsigned")
        )
    told: dict[PartQuestion, bool | Unknown] = {}
    for part in sorted(parts, key=str):
        outcome = draw(OUTCOMES)
        told[part] = Unknown("away") if outcome is None else outcome
    exemptions = draw(st.lists(st.sampled_from([exemption(), exemption(policies=["models"])]), max_size=1))
    guarded = frozenset(draw(st.sets(st.sampled_from(["plant-a", "plant-b"]))))
    return uses, Scope(policies, exemptions, guarded, NOW), Answers(verdicts, told)


def findings_of(found: Audit) -> dict[str, dict[FindingKey, Finding]]:
    return {name: {finding.key: finding for finding in one.findings} for name, one in found.policies.items()}


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_pods_and_policies_changes_nothing(
    world: tuple[list[ImageUse], Scope, Answers], chance: random.Random
) -> None:
    uses, within, answers = world
    shuffled, policies = list(uses), list(within.policies)
    chance.shuffle(shuffled)
    chance.shuffle(policies)
    other = Scope(policies, within.exemptions, within.guarded, NOW)
    assert audit(shuffled, other, answers, {}) == audit(uses, within, answers, {})


@given(worlds())
def test_a_second_audit_of_the_same_finds_the_same_since_the_same_time(
    world: tuple[list[ImageUse], Scope, Answers],
) -> None:
    uses, within, answers = world
    first = audit(uses, within, answers, {})
    later = Scope(within.policies, within.exemptions, within.guarded, NOW + timedelta(minutes=5))
    assert audit(uses, later, answers, findings_of(first)) == first


@given(worlds())
def test_no_answer_at_all_loses_no_finding_and_makes_none(
    world: tuple[list[ImageUse], Scope, Answers],
) -> None:
    uses, within, answers = world
    first = findings_of(audit(uses, within, answers, {}))
    silent = Answers(
        dict.fromkeys(answers.verdicts, Unknown("away")), dict.fromkeys(answers.parts, Unknown("away"))
    )
    again = findings_of(audit(uses, within, silent, first))
    assert keys(again) == keys(first)


@given(worlds())
def test_every_finding_is_a_use_that_a_policy_speaks_about(
    world: tuple[list[ImageUse], Scope, Answers],
) -> None:
    uses, within, answers = world
    found = audit(uses, within, answers, {})
    for one in found.policies.values():
        assert {finding.use for finding in one.findings} <= set(uses)
        assert len(one.findings) <= len(uses)
    assert set(found.uncovered) <= set(uses)
    assert all(one.namespace in within.guarded for one in found.uncovered)


def keys(found: Mapping[str, Mapping[FindingKey, Finding]]) -> dict[str, set[FindingKey]]:
    return {name: set(findings) for name, findings in found.items()}
