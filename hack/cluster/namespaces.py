"""Network and mount namespaces: made, entered by programs, entered by threads of this process."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.commands import ClusterError, run, system_environment
from cluster.processes import Unit, pid_of, start

_CLONE_NEWNET = 0x40000000
CONTROL_PLANE = "cp"
"""The machine that runs the control plane and the registry: a network namespace and nothing more."""


def holder(machine: str) -> int | None:
    """Return the process that keeps a machine's namespaces alive, or None when there is none."""
    return pid_of(Unit(machine, "holder"))


def create_namespaces(machine: str, *, mounts: bool) -> int:
    """Give a machine its namespaces (network; with `mounts` also mounts and host name).

    Returns the process that holds them, once it is inside.
    """
    kinds = ["--net", "--mount", "--uts", "--propagation", "private"] if mounts else ["--net"]
    pid = start(Unit(machine, "holder"), ["unshare", *kinds, "sleep", "infinity"])
    deadline = time.monotonic() + 10
    while not _has_become(pid, "sleep"):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the namespaces of {machine} do not appear (this needs root and a Linux kernel)"
            )
        time.sleep(0.01)
    return pid


def _has_become(pid: int, program: str) -> bool:
    """Say whether the process has got past `unshare`: its name changes at the exec that follows."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == program
    except OSError:
        return False


def inside(machine: str, argv: list[str], *, mounts: bool = False) -> list[str]:
    """Return the command line that runs a program inside a machine.

    Raises ClusterError when the machine is off. The working directory is the root folder, as nsenter leaves
    it.
    """
    pid = holder(machine)
    if pid is None:
        raise ClusterError(f"{machine} is not running")
    kinds = ["--net", "--mount", "--uts"] if mounts else ["--net"]
    return ["nsenter", "--target", str(pid), *kinds, "--wd=/", "--", *argv]


def run_inside(machine: str, argv: list[str], *, mounts: bool = False, timeout_s: float = 60) -> str:
    """Run a program inside a machine to its end and return its output; raises as `commands.run`."""
    return run(inside(machine, argv, mounts=mounts), timeout_s=timeout_s, env=system_environment())


def enter_network(pid: int) -> None:
    """Move the calling thread into the network namespace of a process: its new sockets belong there.

    Never call this on a thread that does anything else: there is no way back that needs no extra rights.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(
                number, f"cannot enter the network namespace of process {pid}: {os.strerror(number)}"
            )
    finally:
        os.close(descriptor)


class NetworkThreads:
    """Threads of this process that live inside a machine's network, for requests as they look from there.

    A request costs a connection and nothing more. The threads follow a machine that was switched off and on
    again.
    """

    def __init__(self, machine: str, *, size: int = 8) -> None:
        self._machine = machine
        self._size = size
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._holder: int | None = None

    def pool(self) -> ThreadPoolExecutor:
        """Return the threads. Raises ConnectionError when the machine is off."""
        pid = holder(self._machine)
        if pid is None:
            raise ConnectionError(f"{self._machine} is off")
        with self._lock:
            if self._pool is None or self._holder != pid:
                if self._pool is not None:
                    self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = ThreadPoolExecutor(
                    self._size, f"in-{self._machine}", initializer=enter_network, initargs=(pid,)
                )
                self._holder = pid
            return self._pool

    def close(self) -> None:
        """End the threads once they have nothing to do."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._pool = None
