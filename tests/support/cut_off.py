"""A place without any network but its own loopback, where every look-up of a name is written down.

It is a network and a mount namespace of its own, with a name server on its loopback that knows nothing and
remembers what it was asked. Programs are started in it with `nsenter`. It ends with the block.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_NAME_SERVER = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
print("ready", flush=True)
while True:
    asked, address = server.recvfrom(4096)
    name, at = [], 12
    while asked[at]:
        name.append(asked[at + 1 : at + 1 + asked[at]].decode(errors="replace"))
        at += asked[at] + 1
    with open(sys.argv[2], "a") as book:
        book.write(".".join(name) + "\\n")
    # The same question back, with "no such name".
    server.sendto(asked[:2] + b"\\x81\\x83" + asked[4:6] + bytes(6) + asked[12 : at + 5], address)
"""


@dataclass(frozen=True)
class CutOff:
    """The place: which process holds it, and where look-ups are written down."""

    process_id: int
    book: Path

    def command(self, *argv: str, folder: Path) -> list[str]:
        """Give the command that runs another one in there, in a folder."""
        namespaces = f"/proc/{self.process_id}/ns"
        entering = ["nsenter", f"--net={namespaces}/net", f"--mount={namespaces}/mnt"]
        # Who enters other mounts stands at their root.
        return [*entering, "--", "env", f"--chdir={folder}", *argv]

    def run(
        self, *argv: str, folder: Path, status: int | None = 0, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a program to its end and give what it said; its status must be this, unless that is None."""
        done = subprocess.run(
            self.command(*argv, folder=folder),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert status is None or done.returncode == status, f"{argv}: {done}"
        return done.stdout

    def looked_up(self) -> list[str]:
        """Give the names that anybody in there has asked for."""
        return self.book.read_text().splitlines() if self.book.exists() else []


@contextlib.contextmanager
def cut_off(folder: Path) -> Iterator[CutOff]:
    """Make the place, and take it away with the block."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    book = folder / "looked-up"
    argv = [sys.executable, "-c", _NAME_SERVER, str(folder / "resolv.conf"), str(book)]
    server = subprocess.Popen(["unshare", "--net", "--mount", *argv], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield CutOff(server.pid, book)
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
