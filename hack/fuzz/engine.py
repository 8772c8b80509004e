"""The loop: make an input or take a known one, change it, check it, and keep what behaved in a new way."""

import signal
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from types import FrameType
from typing import Protocol

from fuzz.mutation import Mutator

_MAX_KNOWN = 4096
_HANG_SECONDS = 10
_ALARM_EVERY = 256
"""Setting a timer is a system call: one watches over this many inputs."""


class Target(Protocol):
    """One way into the server."""

    @property
    def name(self) -> str:
        """The word of the command line."""

    @property
    def seeds(self) -> Sequence[bytes]:
        """Inputs to begin with."""

    @property
    def words(self) -> Sequence[bytes]:
        """Pieces of the input's language."""

    def make(self, random: Random) -> bytes:
        """Return an input of the language, right or nearly so."""

    def check(self, data: bytes) -> Hashable:
        """Feed the input and hold the outcome against the oracle; return what kind of outcome it was.

        Raises where the server fails, or the oracle disagrees.
        """


@dataclass
class Finding:
    """An input that the server failed at, and how."""

    data: bytes
    error: BaseException


@dataclass
class Outcome:
    """What a run saw: inputs, kinds of outcomes, seconds, and the first failure."""

    inputs: int = 0
    kinds: set[Hashable] = field(default_factory=set)
    seconds: float = 0.0
    finding: Finding | None = None


class HangError(Exception):
    """An input kept the server busy for too long."""


def run(target: Target, *, count: int, seed: int, seconds: float = float("inf")) -> Outcome:
    """Check ``count`` inputs, or as many as fit in ``seconds``; stops at the first failure."""
    random, mutator, outcome = Random(seed), Mutator(target.words), Outcome()
    known = list(target.seeds)
    began = monotonic()
    with _hang_watch() as go_on:
        while outcome.inputs < count and outcome.finding is None:
            if outcome.inputs % _ALARM_EVERY == 0:
                go_on()
                if monotonic() > began + seconds:
                    break
            if outcome.inputs < len(target.seeds):
                data = known[outcome.inputs]
            else:
                data = target.make(random) if random.random() < 0.5 else random.choice(known)
                if random.random() < 0.7:
                    data = mutator.mutate(random, data, random.choice(known))
            outcome.inputs += 1
            _check_one(target.check, data, outcome, known)
    outcome.seconds = monotonic() - began
    return outcome


def _check_one(check: Callable[[bytes], Hashable], data: bytes, outcome: Outcome, known: list[bytes]) -> None:
    try:
        kind = check(data)
    except Exception as error:
        outcome.finding = Finding(data, error)
        return
    if kind not in outcome.kinds:
        outcome.kinds.add(kind)
        if len(known) < _MAX_KNOWN:
            known.append(data)


@contextmanager
def _hang_watch() -> Iterator[Callable[[], object]]:
    """Raise HangError in the main thread when what is given here is not called in time."""
    before = signal.signal(signal.SIGALRM, _raise_hang)
    try:
        yield lambda: signal.alarm(_HANG_SECONDS)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _raise_hang(signum: int, frame: FrameType | None) -> None:
    raise HangError(f"no end after {_HANG_SECONDS} s")
