"""Running other programs: a fixed argument list in, output out, one exception for every failure."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ClusterError(Exception):
    """The cluster cannot do what was asked; the text is a sentence for the person who asked."""


class CommandFailed(ClusterError):  # noqa: N818 (reads as a sentence where it is raised)
    """A program ended with an error; carries the end of what it said."""

    def __init__(self, argv: Sequence[str], status: str, output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-25:])
        super().__init__(f"`{' '.join(argv)}` {status}\n{tail}".rstrip())


def run(
    argv: Sequence[str],
    *,
    timeout_s: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
) -> str:
    """Run a program to its end and return what it wrote to standard output.

    Raises CommandFailed when it ends with another status than 0, cannot be started or takes longer than
    `timeout_s`.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as stuck:
        seen = (stuck.stdout or b"") + (stuck.stderr or b"")
        raise CommandFailed(
            argv, f"took longer than {timeout_s:.0f} s", seen.decode(errors="replace")
        ) from None
    except OSError as missing:
        raise CommandFailed(argv, f"could not be started: {missing}", "") from None
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise CommandFailed(argv, f"ended with status {done.returncode}", output)
    return done.stdout.decode(errors="replace")


def try_run(argv: Sequence[str], *, timeout_s: float = 60) -> bool:
    """Run a program whose failure is an answer, not an error, and say whether it succeeded."""
    try:
        run(argv, timeout_s=timeout_s)
    except CommandFailed:
        return False
    return True


def system_environment() -> dict[str, str]:
    """Return an environment for system programs: `sbin` is on the path whatever the caller's shell says."""
    return {**os.environ, "PATH": os.environ.get("PATH", "") + ":" + SYSTEM_PATH}
