"""Globs over names with segments: `*` stays within one segment, `**` crosses them."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def _compiled(glob: str, separator: str) -> re.Pattern[str]:
    segment = f"[^{re.escape(separator)}]"
    parts = (
        ".*" if part == "**" else f"{segment}*" if part == "*" else re.escape(part)
        for part in re.split(r"(\*\*|\*)", glob)
    )
    return re.compile("".join(parts))


def glob_pattern(glob: str, *, separator: str = "/") -> str:
    """Give the glob as a regular expression that the whole text has to match, for programs without us."""
    return _compiled(glob, separator).pattern


def glob_matches(glob: str, text: str, *, separator: str = "/") -> bool:
    """Say whether the whole text matches the glob; nothing but `*` and `**` is special."""
    return _compiled(glob, separator).fullmatch(text) is not None
