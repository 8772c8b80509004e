"""Who asked for what, what was answered and why: one line of the log each, and events for people.

Evidence is named by fingerprints. A dry run leaves a line, marked as such, and no event.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from edgemodel_operator.admission.events import EventRecorder, Occurrence
from edgemodel_operator.admission.judge import Decision, Finding
from edgemodel_operator.admission.metrics import Outcome
from edgemodel_operator.admission.review import Review
from edgemodel_operator.admission.trust_objects import Change
from edgemodel_operator.api.trustpolicy import Mode

MAX_LOGGED_IMAGES = 32

_log = logging.getLogger(__name__)


class AuditTrail:
    """Writes the lines and records the events."""

    def __init__(self, events: EventRecorder) -> None:
        self._events = events

    def judged(self, decision: Decision, review: Review | None, uid: str) -> None:
        """Note the answer to a review; `review` is None when it was not understood."""
        if decision.allowed and decision.outcome is Outcome.ALLOW and not decision.findings:
            return  # nothing starts: labels, finalizers, leases of controllers
        fields: dict[str, Any] = {
            "uid": uid,
            "decision": decision.outcome,
            "mode": decision.mode,
            "reasons": [*decision.refusals, *decision.warnings],
            "images": [_evidence(finding) for finding in decision.findings[:MAX_LOGGED_IMAGES]],
        }
        if review is not None:
            fields |= {
                "user": review.user,
                "operation": review.operation,
                "object": review.subject,
                "namespace": review.namespace,
                "dryRun": review.dry_run,
            }
        if not decision.allowed:
            _log.warning("Denied", extra=fields)
        elif decision.mode is Mode.AUDIT:
            _log.warning("Admitted in Audit mode", extra=fields)
        else:
            _log.info("Admitted by exception" if decision.exceptions else "Admitted", extra=fields)
        if review is not None and not review.dry_run:
            self._tell_people(decision, review)

    def changed(self, change: Change, problems: Sequence[str]) -> None:
        """Note what somebody wanted to do to a policy or an exception."""
        fields = {
            "uid": change.uid,
            "decision": Outcome.DENY if problems else Outcome.ALLOW,
            "user": change.user,
            "operation": change.operation,
            "object": change.subject,
            "dryRun": change.dry_run,
            "changes": change.changes,
            "reasons": list(problems),
        }
        if change.content_unchanged and not problems:
            return
        _log.warning("A change of trust was refused" if problems else "Trust is changed", extra=fields)
        if not change.dry_run:
            self._tell_of_change(change, problems)

    def _tell_people(self, decision: Decision, review: Review) -> None:
        for finding in decision.findings:
            if finding.judgement.allowed and not finding.audited:
                continue
            soft = finding.judgement.allowed
            sentences = finding.judgement.refusals or finding.judgement.warnings
            policy = next((one.policy for one in finding.verdicts if not one.trusted), "")
            self._events.record(
                Occurrence(
                    kind="Namespace",
                    name=review.namespace,
                    namespace=review.namespace,
                    reason="ImageWouldBeRefused" if soft else "ImageRefused",
                    message=f"{review.subject}, asked for by {review.user}: {sentences[0]}",
                    repeats=f"{finding.image} {policy}",
                    policy=policy,
                )
            )

    def _tell_of_change(self, change: Change, problems: Sequence[str]) -> None:
        what = "; ".join(problems or change.changes)
        self._events.record(
            Occurrence(
                kind=change.kind,
                name=change.name,
                namespace=change.namespace or "default",
                reason="TrustChangeRefused" if problems else "TrustChanged",
                message=f"{change.operation} by {change.user}: {what}",
                repeats=f"{change.name} {change.operation} {what}",
                warning=bool(problems),
                uid=change.object_uid,
            )
        )


def _evidence(finding: Finding) -> dict[str, Any]:
    """Say of an image who vouched, by fingerprint, or what it lacks."""
    return {
        "image": finding.image,
        "policies": [one.policy for one in finding.verdicts],
        "by": sorted({name for one in finding.verdicts for name in one.by}),
        "reasons": finding.reasons,
        "exceptions": finding.judgement.exceptions,
    }
