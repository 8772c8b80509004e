"""A filter of system calls: what a process that reads untrusted bytes will never need, the kernel refuses.

Format: seccomp(2), classic BPF over `struct seccomp_data` (number of the call, architecture, …). Numbers of
calls: the kernel's `syscall_64.tbl` for amd64, `asm-generic/unistd.h` for arm64.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

REFUSED: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        # The network. io_uring makes connections without any of the other calls.
        "socket": (41, 198),
        "socketpair": (53, 199),
        "connect": (42, 203),
        "bind": (49, 200),
        "listen": (50, 201),
        "accept": (43, 202),
        "accept4": (288, 242),
        "io_uring_setup": (425, 425),
        # Programs.
        "execve": (59, 221),
        "execveat": (322, 281),
        # Other processes.
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "pidfd_getfd": (438, 438),
        "kcmp": (312, 272),
        # Parts of the kernel that nothing here needs, and that have let others out.
        "unshare": (272, 97),
        "setns": (308, 268),
        "mount": (165, 40),
        "move_mount": (429, 429),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
        "bpf": (321, 280),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
    }
)
"""Number of each call on amd64 and on arm64. What is forked keeps the filter, so that forking may stay."""

SETGROUPS = (116, 159)
"""Number of setgroups(2), in the same order."""

_LOAD, _JUMP_EQUAL, _JUMP_FROM, _RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_RET|BPF_K."""
_ALLOW, _KILL, _ANSWER = 0x7FFF0000, 0x80000000, 0x00050000
"""SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO."""
_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets in struct seccomp_data."""
_INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, steps when true, steps when false, operand."""


@dataclass(frozen=True)
class Machine:
    """An architecture: its AUDIT_ARCH_* word, its column in the table, and where other call tables begin."""

    audit: int
    column: int
    others_from: int | None = None
    """x32 on amd64: the same calls under other numbers."""


MACHINES: Mapping[str, Machine] = MappingProxyType(
    {
        "x86_64": Machine(0xC000003E, 0, others_from=0x40000000),
        "aarch64": Machine(0xC00000B7, 1),
    }
)


def this_machine() -> Machine:
    """Give the architecture of this process; raises OSError where there is no table for it."""
    name = platform.machine()
    if name not in MACHINES:
        raise OSError(errno.ENOSYS, f"There is no filter of system calls for {name}.")
    return MACHINES[name]


def refused_numbers(machine: Machine) -> tuple[int, ...]:
    """Give the numbers that are refused on the architecture, sorted."""
    return tuple(sorted(row[machine.column] for row in REFUSED.values()))


def write_filter(machine: Machine, refused: Sequence[int], *, answer: int = errno.EPERM) -> bytes:
    """Write the program: calls of another architecture kill, the refused ones answer so, others pass.

    With 0 as the answer a call seems to succeed, and does nothing.
    """
    refuse = _ANSWER | answer
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine.others_from is not None:
        program += [(_JUMP_FROM, 0, 1, machine.others_from), (_RETURN, 0, 0, refuse)]
    for left, number in zip(range(len(refused), 0, -1), refused, strict=True):
        program.append((_JUMP_EQUAL, left, 0, number))  # over the other comparisons and the next line
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, refuse)]
    return b"".join(_INSTRUCTION.pack(*line) for line in program)
