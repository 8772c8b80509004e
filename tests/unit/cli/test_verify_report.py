"""How a verification is written down."""

from __future__ import annotations

import pytest

from edgemodel_operator.cli.verify_report import Check, State, VerifyReport
from edgemodel_operator.signing.verdict import Evidence, Outcome, Reason, Step, Trusted, Untrusted

IMAGE = "registry.plant-a.local:5000/models/nsfw@sha256:" + "a" * 64
HELD = Step(1, "the reference names a digest", Outcome.HOLDS, "sha256:aa")
FAILED = Step(5, "a key made the signature", Outcome.FAILS, "it is not signed")
YES = Check('TrustPolicy "models"', Trusted(("plant",), (Evidence("sha256:aa", ("plant",)),), (HELD,)))
NO = Check('TrustPolicy "site"', Untrusted(Reason.UNSIGNED, "it is not signed.", (), (HELD, FAILED)))
UNKNOWN = Check('TrustPolicy "far"', None, "the registry did not answer")
UNSURE = Check('TrustPolicy "new"', NO.verdict, "a key could not be read")


@pytest.mark.parametrize(
    ("checks", "state", "code"),
    [
        ([YES], State.TRUSTED, 0),
        ([YES, NO], State.UNTRUSTED, 1),
        ([UNKNOWN, NO], State.UNTRUSTED, 1),
        ([YES, UNKNOWN], State.UNKNOWN, 3),
        ([YES, UNSURE], State.UNKNOWN, 3),
        ([], State.UNTRUSTED, 1),
    ],
)
def test_all_checks_must_hold_and_one_that_fails_decides(
    checks: list[Check], state: State, code: int
) -> None:
    report = VerifyReport(IMAGE, checks)
    assert report.state is state
    assert report.exit_code == code
    assert report.document()["state"] == state.value


def test_each_step_is_a_line_with_its_number_its_outcome_and_what_was_found() -> None:
    assert VerifyReport(IMAGE, (YES, NO)).lines() == [
        IMAGE,
        "",
        'TrustPolicy "models"',
        "   1  holds      the reference names a digest: sha256:aa",
        "  trusted: vouched for by plant",
        "",
        'TrustPolicy "site"',
        "   1  holds      the reference names a digest: sha256:aa",
        "   5  fails      a key made the signature: it is not signed",
        "  untrusted: it is not signed.",
    ]


def test_notes_and_what_is_missing_are_said() -> None:
    noted = Check("the keys a.pub", None, "the registry did not answer", ("a note",))
    assert noted.lines() == ["the keys a.pub", "  a note", "  unknown: the registry did not answer"]
    assert VerifyReport(IMAGE, (), "no TrustPolicy matches it").lines()[-1] == "no TrustPolicy matches it"


def test_the_document_has_the_reason_and_every_step() -> None:
    (check,) = VerifyReport(IMAGE, (NO,)).document()["checks"]
    assert check["reason"] == "Unsigned"
    assert [step["number"] for step in check["steps"]] == [1, 5]
    assert check["steps"][1]["outcome"] == "fails"
