"""How a verification is written down, step by step, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from edgemodel_operator.signing.verdict import Step, Trusted, Untrusted, Verdict


class State(StrEnum):
    """What came out."""

    TRUSTED = "Trusted"
    UNTRUSTED = "Untrusted"
    UNKNOWN = "Unknown"


EXIT_CODES = {State.TRUSTED: 0, State.UNTRUSTED: 1, State.UNKNOWN: 3}


@dataclass(frozen=True)
class Check:
    """An image held against one thing that is asked of it.

    `title` names that: `TrustPolicy "models"`, or the given keys. `unknown` says why there is no verdict,
    half a sentence; with one that is a "no" it says why that could still change. `notes` are sentences.
    """

    title: str
    verdict: Verdict | None
    unknown: str = ""
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """What came out of it."""
        if isinstance(self.verdict, Trusted):
            return State.TRUSTED
        return State.UNKNOWN if self.unknown or self.verdict is None else State.UNTRUSTED

    def lines(self) -> list[str]:
        """Write it for people."""
        steps = self.verdict.steps if self.verdict is not None else ()
        return [
            self.title,
            *(_line(step) for step in steps),
            *(f"  {note}" for note in self.notes),
            f"  {self._outcome()}",
        ]

    def document(self) -> dict[str, Any]:
        """Write it for programs."""
        verdict = self.verdict
        return {
            "title": self.title,
            "state": self.state.value,
            "reason": verdict.reason.value if isinstance(verdict, Untrusted) else "",
            "message": self._outcome(),
            "notes": list(self.notes),
            "by": list(verdict.by) if isinstance(verdict, Trusted) else [],
            "steps": [asdict(step) for step in verdict.steps] if verdict is not None else [],
            "evidence": [asdict(one) for one in verdict.evidence] if verdict is not None else [],
        }

    def _outcome(self) -> str:
        if isinstance(self.verdict, Trusted):
            return f"trusted: vouched for by {', '.join(self.verdict.by)}"
        if self.unknown or self.verdict is None:
            return f"unknown: {self.unknown}"
        return f"untrusted: {self.verdict.message}"


@dataclass(frozen=True)
class VerifyReport:
    """An image held against everything that is asked of it.

    `missing` is why it is untrusted without any check: nothing speaks about it.
    """

    image: str
    checks: Sequence[Check]
    missing: str = ""

    @property
    def state(self) -> State:
        """All checks must hold; one that fails decides, also when another could not be made."""
        states = {check.state for check in self.checks}
        if not states or State.UNTRUSTED in states:
            return State.UNTRUSTED
        return State.UNKNOWN if State.UNKNOWN in states else State.TRUSTED

    @property
    def exit_code(self) -> int:
        """0 trusted, 1 untrusted, 3 it could not be found out."""
        return EXIT_CODES[self.state]

    def lines(self) -> list[str]:
        """Write it for people."""
        lines = [self.image]
        for check in self.checks:
            lines += ["", *check.lines()]
        return [*lines, "", self.missing] if self.missing else lines

    def document(self) -> dict[str, Any]:
        """Write it for programs."""
        return {
            "image": self.image,
            "state": self.state.value,
            "message": self.missing,
            "checks": [check.document() for check in self.checks],
        }


def _line(step: Step) -> str:
    detail = f": {step.detail}" if step.detail else ""
    return f"  {step.number:>2}  {step.outcome.value:<9}  {step.checked}{detail}"
