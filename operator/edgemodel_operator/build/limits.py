"""Bounds that the kernel keeps for a process that touches untrusted bytes."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from edgemodel_operator.build.system_calls import SETGROUPS, refused_numbers, this_machine, write_filter

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_FIRST_VICTIM = "1000"
_NO_LIMIT = 1 << 60
"""Version 1 of control groups writes a number near 2**63 for none."""


def limit_soft(kind: int, value: int) -> None:
    """Lower the soft limit; children may raise it again up to the hard limit."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def limit_hard(kind: int, value: int) -> None:
    """Lower both limits for good."""
    _, hard = resource.getrlimit(kind)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (bound, bound))


def be_ended_first() -> None:
    """Have the kernel choose this process before others where memory is short: the operator is to stay."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_VICTIM)


def container_memory(root: Path = Path("/")) -> int | None:
    """Give how many bytes of memory the container, or the control group of this process, may use.

    None without a limit. Format: cgroups(7), both versions. `root` is where the system is.
    """
    found = [_read_limit(path) for path in _limit_files(root)]
    return min((limit for limit in found if limit is not None), default=None)


def _limit_files(root: Path) -> Iterator[Path]:
    """Give the files with limits from the group of this process up; a container may see the top alone."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", "1:memory:/", *lines]:
        _, controllers, path = line.split(":", 2)
        folder = PurePosixPath(path.lstrip("/"))
        for group in (folder, *folder.parents):
            if not controllers:
                yield groups / group / "memory.max"
            elif "memory" in controllers.split(","):
                yield groups / "memory" / group / "memory.limit_in_bytes"


def _read_limit(path: Path) -> int | None:
    """Give the limit in a file; None where there is no file, or no limit."""
    try:
        limit = int(path.read_text())
    except (OSError, ValueError):  # `max`
        return None
    return limit if limit < _NO_LIMIT else None


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; `parent` is the process id it started from.

    Format: prctl(2). Exits at once when the parent has gone before we asked.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def renounce_privileges() -> None:
    """Give up what set-user-id programs could bring, and write no core dumps (they would hold secrets)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    limit_hard(resource.RLIMIT_CORE, 0)


class _Program(ctypes.Structure):
    """struct sock_fprog of seccomp(2)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def renounce_system_calls() -> None:
    """Give up the network, starting programs, and reaching into other processes: such calls answer EPERM.

    Holds for this thread and whatever it starts from now on, so it comes before the first import that starts
    threads, and after `renounce_privileges`. Raises OSError where the kernel cannot filter.
    """
    machine = this_machine()
    _filter_calls(write_filter(machine, refused_numbers(machine)))


def ignore_setgroups() -> None:
    """Let setgroups(2) seem to succeed, for programs that insist on it where nobody may call it.

    Holds like `renounce_system_calls`. Raises OSError where the kernel cannot filter.
    """
    machine = this_machine()
    _filter_calls(write_filter(machine, [SETGROUPS[machine.column]], answer=0))


def _filter_calls(content: bytes) -> None:
    program = _Program(len(content) // 8, content)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _prctl(option: int, value: int, pointer: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    numbers = (ctypes.c_ulong(number) for number in (value, pointer, 0, 0))
    if libc.prctl(option, *numbers) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
