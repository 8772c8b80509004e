"""A second reader, as lax as the laxest one in the field: what both accept must mean the same to both.

Go's decoder, which cosign and most tools use, matches member names without regard to case and takes the last
of several. Where our strict reader accepts a document, that reader must find the same in it.
"""

import json
from collections.abc import Callable, Hashable, Sequence
from random import Random
from typing import Any

from edgemodel_operator.signing.errors import SigningError


class Lax(dict[str, Any]):
    """A JSON object as Go reads it."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__((name.casefold(), value) for name, value in pairs)

    def of(self, *names: str) -> Any:
        """Return what lies under a path of names, None where it ends early."""
        found: Any = self
        for name in names:
            found = found.get(name.casefold()) if isinstance(found, Lax) else None
        return found


def lax_json(data: bytes) -> Lax:
    """Return a JSON object as Go reads it; raises ValueError."""
    found = json.loads(data, object_pairs_hook=Lax)
    return found if isinstance(found, Lax) else Lax(())


def outcome_of(read: Callable[[], Hashable]) -> Hashable:
    """Return what a reader says; a refusal is told apart by its kind and the first words of its sentence."""
    try:
        return read()
    except SigningError as refusal:
        return type(refusal).__name__, " ".join(str(refusal).split()[:7])


def same(ours: object, theirs: object) -> None:
    """Raise AssertionError where two readers disagree about a document that both accept."""
    assert ours == theirs, f"we read {ours!r}, others {theirs!r}"


def spliced(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Return a document made of two: the beginning of one, the end of another."""
    one, other = random.choice(seeds), random.choice(seeds)
    return one[: random.randint(0, len(one))] + other[random.randint(0, len(other)) :]
