"""JSON as signature formats need it: one meaning for every byte string, whichever parser reads it.

Go's decoder, which cosign uses, takes the last of two equal keys and matches keys without regard to case;
Python's matches exactly. A document that the two would read differently is refused here.
"""

import json
from collections.abc import Sequence
from typing import NoReturn

from edgemodel_operator.signing.errors import FormatError


def parse_strict_json(data: bytes, *, max_bytes: int, what: str) -> dict[str, object]:
    """Parse a JSON object of at most `max_bytes`; `what` names it in errors.

    Raises `FormatError` for anything but one object in plain UTF-8: too large, byte order mark, duplicate
    keys, NaN, nesting beyond what the parser follows, or an integer too long to convert.
    """
    if len(data) > max_bytes:
        raise FormatError(f"{what} has {len(data)} bytes, more than the {max_bytes} allowed")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not strict JSON: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{what} is not a JSON object")
    return value


def member(parent: dict[str, object], name: str, what: str) -> object:
    """Return `parent[name]`; absent members are `None`, and a second spelling of the name is refused."""
    folded = name.casefold()
    if any(key != name and key.casefold() == folded for key in parent):
        raise FormatError(f"{what} has a member that differs from {name!r} by letter case only")
    return parent.get(name)


def object_member(parent: dict[str, object], name: str, what: str) -> dict[str, object]:
    """Return the JSON object under `name`, or raise `FormatError`."""
    value = member(parent, name, what)
    if not isinstance(value, dict):
        raise FormatError(f"{what} has no object {name!r}")
    return value


def list_member(parent: dict[str, object], name: str, what: str) -> list[object]:
    """Return the JSON list under `name`, or raise `FormatError`."""
    value = member(parent, name, what)
    if not isinstance(value, list):
        raise FormatError(f"{what} has no list {name!r}")
    return value


def string_member(parent: dict[str, object], name: str, what: str) -> str:
    """Return the string under `name`, or raise `FormatError`."""
    value = member(parent, name, what)
    if not isinstance(value, str):
        raise FormatError(f"{what} has no string {name!r}")
    return value


def refuse_unknown_members(parent: dict[str, object], known: frozenset[str], what: str) -> None:
    """Raise `FormatError` when the object has a member outside `known`."""
    unknown = sorted(set(parent) - known)
    if unknown:
        raise FormatError(f"{what} has the unknown member {unknown[0][:64]!r}")


def _unique_members(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
