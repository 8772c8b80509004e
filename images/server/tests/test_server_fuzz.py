"""A short, fixed slice of ``make fuzz-serving``, and every input that a longer run has found a fault with."""

from random import Random

import pytest

from fuzz.engine import run
from fuzz.mutation import MAX_INPUT_BYTES, Mutator
from fuzz.targets import SHARES, TARGETS

JSON_HEAD = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":'
COUNTS = {"json": 8000, "binary": 8000, "http": 2500, "grpc-message": 4000, "grpc-http2": 1000}


@pytest.mark.parametrize("name", TARGETS)
def test_every_way_in_stands_a_slice_of_noise(name: str) -> None:
    outcome = run(TARGETS[name](), count=COUNTS[name], seed=2)
    assert outcome.finding is None, outcome.finding
    assert outcome.inputs == COUNTS[name]
    assert len(outcome.kinds) > 20  # noise that is all refused for one reason proves nothing


@pytest.mark.parametrize(
    ("name", "data"),
    [
        # simdjson skips a byte order mark, before the text and before the data of a known text.
        ("json", b"\0\xef\xbb\xbf" + JSON_HEAD + b"[1,2,3,4]}]}"),
        ("json", b"\0" + JSON_HEAD + b"\xef\xbb\xbf[1,2,3,4]}]}"),
        # simdjson lists a key with a NUL, but does not find it.
        ("json", b'\0{"a\\u0000b":1,"inputs":[]}'),
        ("json", b'\0{"inputs":[{"\\u0000":1}]}'),
        # numpy takes no shape whose other sizes are huge, though there is nothing in it.
        ("json", b'\6{"inputs":[{"name":"x","datatype":"FP64","shape":[18446744073709551615,0],"data":[]}]}'),
        ("json", b'\6{"inputs":[{"name":"x","datatype":"FP64","shape":[0,4611686018427387904],"data":[]}]}'),
        # The text of hpack's error is a memory address, which the client was told.
        ("grpc-http2", b"\0\0\0\4\0\0\0\0\0\0\0\x0c\1\5\0\0\0\1\0" + b"\xff" * 11),
    ],
)
def test_what_was_found_stays_found(name: str, data: bytes) -> None:
    target = TARGETS[name]()
    for seed in target.seeds:
        target.check(seed)
    target.check(data)


class Broken:
    """A target that fails at a certain word, and at nothing else."""

    name = "broken"
    seeds = (b"harmless",)
    words = (b"harm", b"bad")

    def make(self, random: Random) -> bytes:
        return random.choice((b"harmless", b"words"))

    def check(self, data: bytes) -> int:
        assert b"bad" not in data
        return len(data)


def test_a_failure_is_found_and_ends_the_run() -> None:
    outcome = run(Broken(), count=10_000, seed=1)
    assert outcome.finding is not None
    assert b"bad" in outcome.finding.data
    assert outcome.inputs < 10_000


def test_the_same_seed_gives_the_same_inputs() -> None:
    assert run(Broken(), count=10_000, seed=3).inputs == run(Broken(), count=10_000, seed=3).inputs


def test_inputs_stay_small() -> None:
    random, mutator = Random(1), Mutator([b"a" * 100])
    data = b"a" * 100
    for _ in range(2000):
        data = mutator.mutate(random, data, data)
        assert len(data) <= MAX_INPUT_BYTES


def test_every_target_has_its_share() -> None:
    assert SHARES.keys() == TARGETS.keys()
    assert sum(SHARES.values()) == pytest.approx(1)
