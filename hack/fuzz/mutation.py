"""Changes to an input that are likely to matter: bytes, numbers, repeats, and the words of its language."""

from collections.abc import Callable, Sequence
from random import Random

MAX_INPUT_BYTES = 4096

_NUMBERS = (0, 1, 2, 3, 4, 15, 16, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_Change = Callable[[Random, bytes], bytes]


class Mutator:
    """Makes new inputs of known ones. ``words`` are pieces of the input's language."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self._words = words
        self._changes: tuple[_Change, ...] = (
            _flip_bit, _set_byte, _remove, _repeat, _swap, _change_number, _cut,
            self._insert_word, self._insert_word, self._replace_by_word,
        )  # fmt: skip

    def mutate(self, random: Random, data: bytes, other: bytes) -> bytes:
        """Return ``data`` after a few changes; ``other`` is another input that pieces may come from."""
        for _ in range(random.choice((1, 1, 1, 1, 1, 2, 2, 3, 6))):
            data = _splice(random, data, other) if random.random() < 0.1 else self._change(random, data)
        return data[:MAX_INPUT_BYTES]

    def _change(self, random: Random, data: bytes) -> bytes:
        return random.choice(self._changes)(random, data)

    def _insert_word(self, random: Random, data: bytes) -> bytes:
        place = random.randint(0, len(data))
        return data[:place] + random.choice(self._words) + data[place:]

    def _replace_by_word(self, random: Random, data: bytes) -> bytes:
        start, end = _range(random, data)
        return data[:start] + random.choice(self._words) + data[end:]


def _range(random: Random, data: bytes) -> tuple[int, int]:
    """Return a range of the input, most often a short one."""
    start = random.randint(0, len(data))
    longest = random.choice((1, 2, 4, 8, 16, 64, 1024))
    return start, min(len(data), start + random.randint(0, longest))


def _flip_bit(random: Random, data: bytes) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _set_byte(random: Random, data: bytes) -> bytes:
    place = random.randint(0, len(data))
    return data[:place] + bytes((random.randrange(256),)) + data[place + 1 :]


def _remove(random: Random, data: bytes) -> bytes:
    start, end = _range(random, data)
    return data[:start] + data[end:]


def _repeat(random: Random, data: bytes) -> bytes:
    start, end = _range(random, data)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 7)) + data[end:]


def _swap(random: Random, data: bytes) -> bytes:
    start, end = _range(random, data)
    other = random.randint(end, len(data))
    return data[:start] + data[end:other] + data[start:end] + data[other:]


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def _change_number(random: Random, data: bytes) -> bytes:
    """Replace a run of decimal digits, or a few bytes as a little-endian number."""
    digits = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
    number = random.choice(_NUMBERS) + random.randint(-1, 1)
    if digits and random.random() < 0.8:
        start = end = random.choice(digits)
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        return data[:start] + str(number).encode() + data[end:]
    size = random.choice((1, 2, 4, 8))
    place = random.randint(0, len(data))
    raw = (number % (1 << 8 * size)).to_bytes(size, "little")
    return data[:place] + raw + data[place + size :]


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]
