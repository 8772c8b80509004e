"""The program that filters system calls, run step by step as the kernel runs it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.build.system_calls import MACHINES, REFUSED, refused_numbers, write_filter

ALLOW, KILL, EPERM = 0x7FFF0000, 0x80000000, 0x00050001
NUMBERS = st.integers(0, 2**32 - 1)


def run(program: bytes, number: int, audit: int) -> int:
    """Interpret classic BPF over the first two words of struct seccomp_data."""
    data = struct.pack("=II", number, audit)
    lines = list(struct.iter_unpack("=HBBI", program))
    accumulator = position = 0
    while True:
        code, when_true, when_false, operand = lines[position]
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                position += when_true if accumulator == operand else when_false
            case 0x35:
                position += when_true if accumulator >= operand else when_false
            case _:
                return int(operand)


@pytest.mark.parametrize("name", MACHINES)
@given(number=NUMBERS)
def test_what_is_listed_is_refused_and_the_rest_passes(name: str, number: int) -> None:
    machine = MACHINES[name]
    program = write_filter(machine, refused_numbers(machine))
    beyond = machine.others_from is not None and number >= machine.others_from
    refused = number in refused_numbers(machine) or beyond
    assert run(program, number, machine.audit) == (EPERM if refused else ALLOW)


@pytest.mark.parametrize("name", MACHINES)
def test_every_listed_call_is_refused(name: str) -> None:
    machine = MACHINES[name]
    program = write_filter(machine, refused_numbers(machine))
    verdicts = {run(program, numbers[machine.column], machine.audit) for numbers in REFUSED.values()}
    assert verdicts == {EPERM}


@pytest.mark.parametrize("name", MACHINES)
@given(number=NUMBERS, audit=NUMBERS)
def test_calls_of_another_architecture_end_the_process(name: str, number: int, audit: int) -> None:
    machine = MACHINES[name]
    program = write_filter(machine, refused_numbers(machine))
    if audit != machine.audit:
        assert run(program, number, audit) == KILL
