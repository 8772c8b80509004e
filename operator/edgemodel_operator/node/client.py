"""The program that containerd runs before it pulls an image: asks the agent, and decides alone without it.

It is copied to the node together with an interpreter of its own and started outside of any container, so it
uses the standard library and nothing else. containerd's contract (docs/image-verification.md of 2.4): the
arguments are `-name NAME -digest DIGEST -stdin-media-type TYPE`; exit status 0 allows the pull, any other
refuses it; what is printed is the reason. All that this program needs to decide alone lies in `record.json`,
which the agent keeps up to date. The procedure without the agent, whose numbers the code carries:

1. No readable record: refused. The agent writes it before it installs this program.
2. The agent's own image, and images that are exempt: allowed.
3. No policy covers the image: as `unmatched` says.
4. Every policy that covers it was found to hold here before, under the keys of that time: allowed.
5. An exception in force excuses it from all others: allowed.
6. The kubelet has forgotten the agent's pod for longer than GRACE_S: nobody will ever answer, as after an
   uninstallation that did not reach this node. Allowed, and this program takes itself away.
7. Else refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import time

TYPE_CHECKING = False
"""As in typing, whose import alone would double the start of this program."""
if TYPE_CHECKING:
    from typing import Any

CONNECT_S = 2.0
ANSWER_S = 8.0
"""containerd waits for ten seconds, and its own sentence about a time-out says nothing."""
GRACE_S = 600.0
"""How long a pod may be away from its node, as when it is replaced, before it counts as gone for good."""
MAX_ANSWER_BYTES = 65536

SOCKET = "agent.sock"
RECORD = "record.json"
ORPHANED = "orphaned"


class Refused(Exception):  # noqa: N818 - reads as the fact it states
    """The image must not be pulled; the message says why."""


def main(argv: list[str]) -> int:
    """Answer containerd. `argv`: the state folder, the path containerd calls, then its own arguments."""
    state, hook, *rest = argv
    if "-ping" in rest:
        return 0 if ask(os.path.join(state, SOCKET), {"ping": "1"}) else 1  # noqa: PTH118 - few imports
    name, digest = _option(rest, "-name"), _option(rest, "-digest")
    answer = ask(os.path.join(state, SOCKET), {"name": name, "digest": digest})  # noqa: PTH118 - few imports
    try:
        reason = _obey(answer) if answer is not None else decide_alone(state, hook, name, digest)
    except Refused as refused:
        sys.stdout.write(f"{refused}\n")
        return 1
    sys.stdout.write(f"{reason}\n")
    return 0


def ask(path: str, question: dict[str, str]) -> dict[str, Any] | None:
    """Ask the agent at a socket; None when it does not answer, or not in words that make sense."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_S)
            connection.connect(path)
            connection.settimeout(ANSWER_S)
            connection.sendall(json.dumps(question).encode() + b"\n")
            answer = json.loads(_read_line(connection))
    except (OSError, ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and isinstance(answer.get("allowed"), bool) else None


def decide_alone(state: str, hook: str, name: str, digest: str) -> str:
    """Decide without the agent; returns why the image is allowed, or raises Refused."""
    # (1) The record.
    record = _read_record(os.path.join(state, RECORD))  # noqa: PTH118 - as above
    # (2) to (5).
    try:
        missing = judge_alone(record, name, digest, time.time())
    except (AttributeError, KeyError, TypeError, ValueError, re.error):
        raise Refused("edgemodel-node does not answer, and its record cannot be understood") from None
    if not missing:
        return "allowed by what edgemodel-node verified before; it does not answer now"
    # (6) Nobody will ever answer.
    if _is_orphaned(os.path.join(state, ORPHANED), str(record.get("pod", ""))):  # noqa: PTH118 - as above
        with contextlib.suppress(OSError):
            os.unlink(hook)  # noqa: PTH108 - as above
        return "edgemodel-node has left this node; images are no longer verified here"
    # (7) Refused.
    raise Refused(f"{missing}; edgemodel-node does not answer on this node, so nothing new can be verified")


def judge_alone(record: dict[str, Any], name: str, digest: str, now: float) -> str:
    """Give what is missing by the record alone, as a sentence; empty when the image may be pulled."""
    repository = repository_of(name)
    image = f"{repository}@{digest}"
    # (2) Exempt.
    if image in _list(record, "own") or _matches(_list(record, "exempt"), repository):
        return ""
    # (3) Not covered.
    covering = [one for one in _list(record, "policies") if _matches(one["images"], repository)]
    if not covering:
        denied = record["unmatched"] != "Allow"
        failing = {""} if denied else set()
        sentence = f"image {image} is covered by no TrustPolicy"
    # (4) Verified before.
    else:
        known = record["verdicts"].get(image, ())
        failing = {one["name"] for one in covering if one["enforced"] and not _held(one, known)}
        sentence = f"image {image} was not verified here before"
    # (5) Excused.
    if not failing or any(_excuses(one, image, failing, now) for one in _list(record, "exceptions")):
        return ""
    return sentence


def repository_of(name: str) -> str:
    """Give `host[:port]/repository` of a reference, with the host in lower case."""
    path = name.partition("@")[0]
    head, slash, tail = path.rpartition("/")
    path = head + slash + tail.partition(":")[0]
    host, slash, rest = path.partition("/")
    return host.lower() + slash + rest


def _held(policy: dict[str, Any], known: list[str]) -> bool:
    """Tell whether what the policy demands was found to hold; an empty demand is of one not understood."""
    return bool(policy["demand"]) and policy["demand"] in known


def _excuses(exception: dict[str, Any], image: str, failing: set[str], now: float) -> bool:
    policies = set(_list(exception, "policies"))
    if policies and ("" in failing or not failing <= policies):
        return False
    in_force = float(exception["from"]) <= now < float(exception["until"])
    repository = image.partition("@")[0]
    images = _list(exception, "images")
    return in_force and (_matches(images, image) or _matches(images, repository))


def _is_orphaned(marker: str, pod: str) -> bool:
    """Tell whether the agent's pod has been away for long; the first to see that it is leaves a marker."""
    if not pod or os.path.isdir(pod):  # noqa: PTH112 - few imports
        with contextlib.suppress(OSError):
            os.unlink(marker)  # noqa: PTH108 - as above
        return False
    try:
        age = time.time() - os.stat(marker).st_mtime  # noqa: PTH116 - as above
    except OSError:
        age = -1.0
    if age < 0:  # not there yet, or the clock was put back: start counting
        with contextlib.suppress(OSError), open(marker, "w", encoding="ascii"):  # noqa: PTH123 - as above
            os.utime(marker)
    return age > GRACE_S


def _obey(answer: dict[str, Any]) -> str:
    reason = str(answer.get("reason", ""))
    if answer["allowed"] is not True:
        raise Refused(reason)
    return reason


def _read_record(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as above
            record = json.load(file)
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("version") != 1:
        raise Refused("edgemodel-node does not answer, and it has left no record of what it verified")
    return record


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_ANSWER_BYTES:
        part = connection.recv(4096)
        if not part:
            break
        line += part
    return line


def _matches(patterns: list[str], text: str) -> bool:
    return any(re.fullmatch(pattern, text) for pattern in patterns)


def _list(record: dict[str, Any], field: str) -> list[Any]:
    value = record[field]
    if not isinstance(value, list):
        raise TypeError(field)
    return value


def _option(arguments: list[str], name: str) -> str:
    try:
        return arguments[arguments.index(name) + 1]
    except (ValueError, IndexError):
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
