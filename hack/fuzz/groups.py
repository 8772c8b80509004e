"""The groups of targets that the command line knows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fuzz import targets
from fuzz.engine import Target
from fuzz.trust import targets as trust


@dataclass(frozen=True)
class Group:
    """Targets by their words; `shares` says which part of all inputs each gets, else all get the same."""

    targets: Mapping[str, Callable[[], Target]]
    shares: Mapping[str, float] = field(default_factory=dict)

    def share(self, name: str) -> float:
        """Return the share of a target, against those of the others."""
        return self.shares.get(name, 1.0)


GROUPS: Mapping[str, Group] = {
    "server": Group(targets.TARGETS, targets.SHARES),
    "trust": Group(trust.TARGETS),
}
