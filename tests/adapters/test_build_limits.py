"""The filter of system calls in the kernel: what is refused, and what goes on working."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterable

from edgemodel_operator.build.system_calls import REFUSED, this_machine

TRY = """
import ctypes, json, sys, threading
from edgemodel_operator.build.limits import renounce_privileges, renounce_system_calls
libc = ctypes.CDLL(None, use_errno=True)
def call(number):
    ctypes.set_errno(0)
    result = libc.syscall(number, *(ctypes.c_long(-1) for _ in range(6)))
    return ctypes.get_errno() if result == -1 else 0
filtered, numbers = json.loads(sys.argv[1])
if filtered:
    renounce_privileges()
    renounce_system_calls()
answers = [[call(number) for number in numbers]]
thread = threading.Thread(target=lambda: answers.append([call(number) for number in numbers]))
thread.start()
thread.join()
print(json.dumps(answers))
"""


def answers_of(names: Iterable[str], *, filtered: bool) -> list[dict[str, int]]:
    """Make system calls with nonsense for arguments; gives errno by name, of a process and its thread."""
    numbers = {name: REFUSED[name][this_machine().column] for name in names}
    command = [sys.executable, "-c", TRY, json.dumps([filtered, list(numbers.values())])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [dict(zip(numbers, answers, strict=True)) for answers in json.loads(done.stdout)]


def test_the_kernel_refuses_every_listed_call_in_every_thread() -> None:
    expected = dict.fromkeys(REFUSED, errno.EPERM)
    assert answers_of(REFUSED, filtered=True) == [expected, expected]


def test_without_the_filter_the_same_calls_fail_for_their_arguments() -> None:
    """The check of the check: it is not for some other reason that they answer EPERM."""
    for answers in answers_of(("socket", "connect", "execve", "ptrace"), filtered=False):
        assert errno.EPERM not in answers.values()
