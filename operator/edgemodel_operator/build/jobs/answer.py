"""How the worker in a Job gives its last answer, so that no lost log can lose it.

All lines of the protocol go to standard output, hence into the pod's log, where they stand beside those of
standard error. The last one is written to the container's termination message, too, which stays with the pod
(https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/). It holds 4 KiB: of a
longer answer it names the SHA-256, by which the line is known again in the log. So nothing that a library
prints can pass for an answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from edgemodel_operator.build.failures import BuildFailure
from edgemodel_operator.build.protocol import InvalidMessage, Message, decode_message, encode_message
from edgemodel_operator.build.request import BuildResult, Progress

MAX_NOTE_BYTES = 4096
"""What the kubelet keeps of a termination message."""

Answer = BuildResult | BuildFailure


@dataclass(frozen=True)
class LongAnswer:
    """An answer that stands in the log alone."""

    sha256: str
    """Of its line, without the end."""


def write_note(answer: Answer) -> bytes:
    """Give the termination message for an answer."""
    line = encode_message(answer).rstrip()
    if len(line) <= MAX_NOTE_BYTES:
        return line
    return json.dumps({"answerSha256": hashlib.sha256(line).hexdigest()}).encode()


def read_note(text: str) -> Answer | LongAnswer | None:
    """Read a termination message; None if the worker did not write it."""
    found = re.fullmatch(r'\{"answerSha256": "([0-9a-f]{64})"\}', text.strip())
    if found:
        return LongAnswer(found[1])
    message = read_line(text.encode())
    return None if isinstance(message, Progress) else message


def read_line(text: bytes) -> Message | None:
    """Read a line of the log; None if it is no line of the protocol."""
    if not text.startswith(b"{"):
        return None
    try:
        return decode_message(text)
    except InvalidMessage:
        return None


def is_answer(text: bytes, wanted: LongAnswer) -> bool:
    """Tell whether a line of the log is the wanted one."""
    return hashlib.sha256(text).hexdigest() == wanted.sha256
