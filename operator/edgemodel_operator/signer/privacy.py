"""Keeps the memory of this process to itself: no core dump, no look from other processes of the same user."""

from __future__ import annotations

import ctypes
import os
import resource

PR_SET_DUMPABLE = 4
"""`prctl(2)`: 0 also makes /proc/PID/mem and ptrace unusable for everybody but root."""


def keep_memory_private() -> None:
    """Switch core dumps off for good. Raises OSError where the kernel refuses."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
