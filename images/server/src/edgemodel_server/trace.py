"""The trace that a request belongs to, as its caller says in ``traceparent`` and ``tracestate``.

Source: W3C Trace Context, level 1. This server makes no request of its own, so there is nothing to hand the
context on to; it stands in the access log, where a log collector joins it with the caller's spans. No answer
carries it: the response header for that, ``traceresponse``, never left the draft of level 2.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_KEY = rb"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
_VALUE = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rb"(" + _KEY + rb")=" + _VALUE)
_MAX_MEMBERS = 32
_MAX_STATE_BYTES = 512
"""How much of ``tracestate`` everybody must carry on; nobody needs to carry more."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Lower-case hex ids of the trace and of the caller's span; ``state`` is "" or the vendors' own words."""

    trace_id: str
    parent_id: str
    sampled: bool
    state: str


def read_trace(headers: Mapping[bytes, bytes]) -> TraceContext | None:
    """Return the trace that the headers name, by lower-case name; None if there is none, or no valid one."""
    parent = headers.get(b"traceparent")
    found = None if parent is None else _PARENT.fullmatch(parent)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return None
    state = _check_state(headers.get(b"tracestate", b""))
    return TraceContext(trace_id.decode(), parent_id.decode(), bool(int(flags, 16) & 1), state)


def _check_state(text: bytes) -> str:
    """Return ``tracestate`` if it is well-formed; a bad one is dropped, and the trace goes on without it."""
    if len(text) > _MAX_STATE_BYTES:
        return ""
    members = [member for part in text.split(b",") if (member := part.strip(b" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {one.group(1) for one in found if one is not None}
    if len(members) > _MAX_MEMBERS or len(keys) != len(members):  # a key twice, or no member at all
        return ""
    return b",".join(members).decode("ascii")
