"""The machine: which processors serve and ask, how others are kept from disturbing, and what it is called."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

SERVER_CORES = frozenset({0})
CLIENT_CORES = frozenset({1})
BOTH_CORES = SERVER_CORES | CLIENT_CORES

_AUTOGROUP_NICE = -20


class BenchError(Exception):
    """The measurement cannot go on; the text is a sentence for the person who asked."""


def find_interpreter() -> str:
    """Return the Python that every server and the bare runtime run on.

    Debian's, which is the one in our images, where the machine has it in this version; else our own.
    """
    debian = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    return str(debian) if debian.exists() else sys.executable


def describe_interpreter() -> str:
    """Return the version of that Python, with its compiler and place."""
    interpreter = find_interpreter()
    command = [interpreter, "-c", "import sys; print(sys.version)"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"{' '.join(text.split())} ({interpreter})"


def require_two_cores() -> None:
    """Raise BenchError unless the server and the client can each have a processor of their own."""
    if not os.sched_getaffinity(0) >= BOTH_CORES:
        raise BenchError("this needs processors 0 and 1: one for the server, one for the client")


def favour(pid: int) -> bool:
    """Put a process, which leads a session of its own, before everybody else's; tells whether that worked.

    Where the kernel groups processes by session, `nice` only orders the processes inside one session; what
    counts is the weight of the session. It ends with the session, so that nothing needs to be restored.
    """
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(_AUTOGROUP_NICE))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def real_time() -> Iterator[None]:
    """Put this process, and all that it starts while the block lasts, into the real-time class.

    On a busy machine the figures then come near those of a quiet one. But the kernel keeps 50 ms of every
    second for the others, who get hardly more: a server without a pause shows them in its 99th percentile.
    Raises BenchError where this is not allowed.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        raise BenchError("--realtime needs root") from None
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def describe_machine() -> dict[str, str]:
    """Return what the figures depend on, for the report."""
    info: dict[str, str] = dict(
        re.findall(r"^(\S.*?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    flags = info.get("flags", "").split()
    vectors = [name for name in ("avx2", "avx512f", "avx512_vnni") if name in flags]
    name = info.get("model name", platform.machine())
    return {
        "processor": f"{os.cpu_count()} x {name} ({', '.join(vectors)})",
        "memory": f"{pages / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": describe_interpreter(),
        "onnxruntime": version("onnxruntime"),
        "numpy": version("numpy"),
    }


def load_average() -> float:
    """Return how many processes wanted a processor in the last minute."""
    return os.getloadavg()[0]
