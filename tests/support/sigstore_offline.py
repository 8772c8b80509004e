"""Verify a keyless bundle in a process of its own, and report what it asked of the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import json, socket, sys
asked = []
speaks = {"connect", "getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo", "sendto", "sendmsg"}
sys.addaudithook(lambda event, _: asked.append(event) if event.removeprefix("socket.") in speaks else None)
from edgemodel_operator.signing.keyless import load_identity
root, issuer, subject, bundle = json.load(sys.stdin)
said = load_identity(root.encode(), issuer=issuer, subject=subject).refusal(bundle.encode())
before = list(asked)
socket.getaddrinfo("localhost", 1)
print(json.dumps([said, before, asked != before]))
"""


@dataclass(frozen=True)
class Offline:
    """Why the bundle was refused, if it was; and the calls that would have left the machine."""

    refusal: str
    asked: tuple[str, ...]


def verify_offline(home: Path, root: bytes, issuer: str, subject: str, bundle: bytes) -> Offline:
    """Verify with an empty home folder, watched by an audit hook that is shown to see a lookup of a name."""
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps([root.decode(), issuer, subject, bundle.decode()]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_DATA_HOME": str(home)},
    )
    refusal, asked, sees = json.loads(ran.stdout)
    assert sees
    return Offline(refusal, tuple(asked))
