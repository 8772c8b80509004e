"""Count different signers: one key counts once, under however many names it is known.

Authorities and keys form a bipartite graph (an edge: this key signed, and it is this authority's). How many
different authorities vouch is the size of its largest matching; that a set of authorities can all be matched
at once and the matching still grown to that size is the exchange property of transversal matroids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet


def different_authorities(signers: Mapping[str, Iterable[str]]) -> int:
    """Give how many authorities vouch, each with a key that stands for no other; `signers`: key to names."""
    return len(_largest_matching(signers, None))


def unmatched_authorities(signers: Mapping[str, Iterable[str]], required: AbstractSet[str]) -> frozenset[str]:
    """Give those of the required authorities that have no key of their own among the signers."""
    return frozenset(required) - frozenset(_largest_matching(signers, required))


def _largest_matching(signers: Mapping[str, Iterable[str]], only: AbstractSet[str] | None) -> dict[str, str]:
    """Match authorities with keys by augmenting paths (Kuhn); sizes are at most 16 by a few hundred."""
    names = {
        key: tuple(name for name in sorted(set(known)) if only is None or name in only)
        for key, known in sorted(signers.items())
    }
    key_of: dict[str, str] = {}

    def place(key: str, tried: set[str]) -> bool:
        for name in names[key]:
            if name in tried:
                continue
            tried.add(name)
            if name not in key_of or place(key_of[name], tried):
                key_of[name] = key
                return True
        return False

    for key in names:
        place(key, set())
    return key_of
