"""Ranges of versions, and how they are found by asking one version after the other."""

from __future__ import annotations

from collections.abc import Iterable

Ranges = list[list[int]]
"""First and last version of each range, ascending."""
Operators = dict[str, dict[str, Ranges]]
"""Domain -> operator -> versions."""


def join_versions(versions: Iterable[int]) -> Ranges:
    """Give the ranges that hold exactly these versions."""
    ranges: Ranges = []
    for version in sorted(set(versions)):
        if ranges and ranges[-1][1] == version - 1:
            ranges[-1][1] = version
        else:
            ranges.append([version, version])
    return ranges
