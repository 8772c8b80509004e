"""What is reported of an audit: a status that is written only when it says something new, and events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.api.trustpolicy_status import MAX_FINDINGS, TrustPolicyStatus
from edgemodel_operator.core.audit import Finding, PolicyAudit
from edgemodel_operator.core.audit_status import (
    CONFIRM_AFTER,
    MAX_NEWS,
    Readiness,
    counts_by_reason,
    known_findings,
    news,
    next_status,
)
from edgemodel_operator.core.audit_uses import ImageUse

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SINCE = "2026-11-20T08:00:00Z"
UNDERSTOOD = Readiness()


def finding(number: int = 0, image: str = "registry.plant-a.local/x", reason: str = "Unsigned") -> Finding:
    use = ImageUse("plant-a", f"pod-{number:04}", "containers[main]", "edge-a", image, "sha256:1")
    return Finding(use, reason, "it is not signed", SINCE)


def status_of(
    result: PolicyAudit,
    old: TrustPolicyStatus | None = None,
    readiness: Readiness = UNDERSTOOD,
    now: datetime = NOW,
) -> TrustPolicyStatus:
    return next_status(old or TrustPolicyStatus(), result, readiness, generation=3, now=now)


def conditions(status: TrustPolicyStatus) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status.value, one.reason) for one in status.conditions}


def test_nothing_untrusted() -> None:
    status = status_of(PolicyAudit(images=4))
    assert conditions(status) == {"Ready": ("True", "Understood"), "Satisfied": ("True", "NothingUntrusted")}
    assert (status.observed_generation, status.checked, status.untrusted) == (3, 4, 0)
    assert status.audited_at == "2026-11-21T12:00:00Z"


def test_findings_are_listed_and_summed_up() -> None:
    status = status_of(PolicyAudit(2, (finding(1), finding(2, reason="StaticPod"))))
    assert conditions(status)["Satisfied"] == ("False", "UntrustedImages")
    assert "2 uses of 1 image" in status.conditions[1].message
    assert "StaticPod 1, Unsigned 1" in status.conditions[1].message
    first = status.findings[0]
    assert (first.pod, first.container, first.node, first.running, first.since) == (
        "pod-0001",
        "containers[main]",
        "edge-a",
        "sha256:1",
        SINCE,
    )


def test_what_could_not_be_verified_is_unknown_and_its_changing_words_are_not_written_again() -> None:
    first = status_of(PolicyAudit(1, unknown=("x: no answer, attempt 1",)))
    assert conditions(first)["Satisfied"] == ("Unknown", "NotVerified")
    assert status_of(PolicyAudit(1, unknown=("x: no answer, attempt 2",)), first) is first


def test_a_policy_that_is_not_understood_is_not_ready_and_says_why() -> None:
    status = status_of(PolicyAudit(1, unknown=("x",)), readiness=Readiness(understood=False, problems=("y",)))
    assert conditions(status) == {
        "Ready": ("False", "NotUnderstood"),
        "Satisfied": ("Unknown", "NotUnderstood"),
    }
    assert status.conditions[0].message == "y"


def test_a_policy_whose_keys_cannot_be_read_is_not_ready() -> None:
    status = status_of(PolicyAudit(), readiness=Readiness(problems=("Secret a does not exist",)))
    assert conditions(status)["Ready"] == ("False", "KeysUnusable")


def test_a_condition_keeps_its_time_until_it_flips() -> None:
    first = status_of(PolicyAudit(1, (finding(),)))
    later = NOW + timedelta(minutes=5)
    second = status_of(PolicyAudit(2, (finding(), finding(1))), first, now=later)
    assert [one.last_transition_time for one in second.conditions] == ["2026-11-21T12:00:00Z"] * 2
    third = status_of(PolicyAudit(2), second, now=later)
    assert [one.last_transition_time for one in third.conditions] == [
        "2026-11-21T12:00:00Z",
        "2026-11-21T12:05:00Z",
    ]


def test_the_same_is_confirmed_once_an_hour_and_not_written_in_between() -> None:
    first = status_of(PolicyAudit(1))
    assert status_of(PolicyAudit(1), first, now=NOW + CONFIRM_AFTER - timedelta(seconds=1)) is first
    confirmed = status_of(PolicyAudit(1), first, now=NOW + CONFIRM_AFTER)
    assert confirmed.audited_at == "2026-11-21T13:00:00Z"
    assert confirmed.model_copy(update={"audited_at": first.audited_at}) == first


@given(st.integers(0, 3 * MAX_FINDINGS), st.integers(0, 600), st.text(max_size=600))
def test_a_status_is_bounded_and_reads_back_what_it_lists(count: int, length: int, words: str) -> None:
    many = tuple(
        Finding(finding(number, image="i" * length).use, "Unsigned", words, SINCE) for number in range(count)
    )
    status = status_of(PolicyAudit(count, many))
    # Every field is validated against the bounds of the schema when it is read again.
    assert TrustPolicyStatus.model_validate(status.to_raw()) == status
    assert (status.untrusted, len(status.findings)) == (count, min(count, MAX_FINDINGS))
    assert len(known_findings(status)) == min(count, MAX_FINDINGS)
    assert status_of(PolicyAudit(count, many), status) is status


def test_news_tells_of_each_image_once_however_many_pods_run_it() -> None:
    told = news([], [finding(number) for number in range(30)])
    assert [(one.kind, one.reason) for one in told] == [("Warning", "Unsigned")]
    assert "plant-a/pod-0000 containers[main] and 29 more" in told[0].message
    assert news([finding(1)], [finding(2), finding(1)]) == ()


def test_another_reason_and_the_end_are_news() -> None:
    (changed,) = news([finding()], [finding(reason="UnknownKey")])
    assert changed.reason == "UnknownKey"
    (gone,) = news([finding()], [])
    assert (gone.kind, gone.reason) == ("Normal", "Resolved")


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_news_is_bounded_and_does_not_depend_on_order(before: set[int], after: set[int]) -> None:
    old = [finding(number, image=f"image-{number}") for number in sorted(before)]
    new = [finding(number, image=f"image-{number}") for number in sorted(after)]
    told = news(old, new)
    assert told == news(old[::-1], new[::-1])
    assert len(told) <= MAX_NEWS + 1
    assert bool(told) == (before != after)


def test_counting_by_reason() -> None:
    assert counts_by_reason([finding(), finding(1), finding(reason="StaticPod")]) == {
        "Unsigned": 2,
        "StaticPod": 1,
    }
