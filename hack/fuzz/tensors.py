"""Inference requests over REST: JSON and binary tensors.

The server remembers descriptions of requests that it read strictly and reads the next one like it without a
parser; JSON it reads with simdjson first. Whatever the shortcut, the outcome must be the strict reader's:
the same arrays bit by bit, or the same sentence.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from math import prod
from random import Random

from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.inference import Signature, parse_infer_request
from edgemodel_server.layouts import Layouts

_FORGET_EVERY = 5000
_NUMBERS = re.compile(r"[0-9]+|\".*?\"", re.DOTALL)


def _sign(*inputs: TensorSpec) -> Signature:
    outputs = {"y": TensorSpec("y", "FP32", (-1, 3)), "z": TensorSpec("z", BYTES, (-1,))}
    return Signature({spec.name: spec for spec in inputs}, outputs)


SIGNATURES = (
    _sign(TensorSpec("x", "FP32", (-1, 4))),
    _sign(TensorSpec("x", "INT32", (-1,))),
    _sign(TensorSpec("x", "UINT8", (-1, 2))),
    _sign(TensorSpec("x", "INT64", ())),
    _sign(TensorSpec("x", "UINT64", (-1, 1, 2))),
    _sign(TensorSpec("x", "FP16", (2,))),
    _sign(TensorSpec("x", "FP64", (-1, -1))),
    _sign(TensorSpec("x", "BOOL", (-1,))),
    _sign(TensorSpec("x", BYTES, (-1,))),
    _sign(TensorSpec("x", "FP32", (-1,)), TensorSpec("w", "INT8", (-1,))),
)

_WORDS = (
    b'"inputs":', b'"outputs":', b'"parameters":', b'"id":', b'"name":', b'"datatype":', b'"shape":',
    b'"data":',
    b'"x"', b'"y"', b'"z"', b'"w"', b'"FP32"', b'"INT32"', b'"UINT8"', b'"BYTES"', b'"BOOL"', b'"FP16"',
    b'"binary_data_size":', b'"binary_data":', b'"binary_data_output":', b'"timeout":', b'"classification":',
    b"[", b"]", b"{", b"}", b",", b":", b'"', b" ", b"\n", b"[]", b"{}", b"[[", b"]]", b"null", b"true",
    b"false",
    b"0", b"-0", b"-0.0", b"1.0", b"1e0", b"1E400", b"-1", b"1e-320", b"16777217", b"9007199254740993",
    b"65520",
    b"18446744073709551615", b"18446744073709551616", b"-9223372036854775809",
    b"340282356779733661637539395458142568448",
    b"NaN", b"Infinity", b"1.", b".5", b"01", b'"\\u0000"', b'"\\ud800"', b'"\\u005b"', b'"["', b"\\",
    b"\xff",
    b"\xc3\xa4", b"\xef\xbb\xbf", b'"a\\u0000b":1,', b'"data":[1,2,3,4],', b',"name":"x"', b'{"name":"y"}',
)  # fmt: skip


def _text_seeds() -> list[bytes]:
    """Return requests as JSON, each behind the byte that chooses a signature."""
    values = {
        0: ("FP32", "[1,4]", ("[1,2.5,-3e2,4]", "[[1,2,3,4]]", "[]")),
        1: ("INT32", "[3]", ("[1,-2,2147483647]",)),
        2: ("UINT8", "[2,2]", ("[1,2,3,255]", "[[1,2],[3,4]]")),
        3: ("INT64", "[]", ("[-9223372036854775808]",)),
        4: ("UINT64", "[2,1,2]", ("[1,2,3,18446744073709551615]", "[[[1,2]],[[3,4]]]")),
        5: ("FP16", "[2]", ("[0.1,65504]",)),
        6: ("FP64", "[1,2]", ("[0.1,1e308]", "[[5e-324,-0.0]]")),
        7: ("BOOL", "[2]", ("[true,false]",)),
        8: (BYTES, "[2]", ('["a","\\u00e4["]',)),
    }
    seeds = []
    for index, (datatype, shape, datas) in values.items():
        for data, extra in product(datas, ("", ',"id":"7"', ',"outputs":[{"name":"y"}]')):
            entry = f'{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}'
            seeds.append(bytes((index,)) + f'{{"inputs":[{entry}]{extra}}}'.encode())
    x = '{"name":"x","datatype":"FP32","shape":[1],"data":[1]}'
    w = '{"name":"w","datatype":"INT8","shape":[1],"data":[1]}'
    wishes = '"parameters":{"binary_data_output":true,"timeout":1000000}'
    seeds.append(bytes((9,)) + f'{{"inputs":[{x},{w}],{wishes}}}'.encode())
    return seeds


def read(layouts: Layouts | None, signature: Signature, body: bytes, length: int | None) -> Hashable:
    """Return the outcome of a request, in a form that can be compared; strictly where ``layouts`` is None."""
    try:
        if layouts is not None:
            request = layouts.parse(body, length)
        else:
            request = parse_infer_request(body, length, signature)
    except ApiError as error:
        return error.status, error.message
    return request.id, request.outputs, request.timeout, freeze(request.inputs)


def freeze(arrays: Mapping[str, Tensor]) -> Hashable:
    """Return named arrays in a form that can be compared, and is equal only bit by bit."""
    return tuple(sorted((name, _freeze_array(array)) for name, array in arrays.items()))


def _freeze_array(array: Tensor) -> tuple[str, tuple[int, ...], object]:
    plain = not array.dtype.hasobject
    return array.dtype.str, array.shape, array.tobytes() if plain else tuple(array.reshape(-1).tolist())


def _name_kind(outcome: Hashable) -> Hashable:
    """Return the outcome without what differs from input to input."""
    assert isinstance(outcome, tuple)
    if len(outcome) == 2:
        return _NUMBERS.sub("#", outcome[1])[:80]
    return outcome[1], outcome[2] is None, outcome[0] is None


class _Requests:
    """What both forms share: the signatures, and what is remembered of each."""

    def __init__(self) -> None:
        self._layouts = [Layouts(signature) for signature in SIGNATURES]
        self._inputs = 0

    def compare(self, choice: int, body: bytes, length: int | None, strict_length: int | None) -> Hashable:
        """Read a body the fast way and the strict way; returns the kind of the outcome."""
        self._inputs += 1
        if self._inputs % _FORGET_EVERY == 0:
            self._layouts = [Layouts(signature) for signature in SIGNATURES]
        place = choice % len(SIGNATURES)
        strict = read(None, SIGNATURES[place], body, strict_length)
        for _ in range(2):  # the first time may be what is remembered for the second
            fast = read(self._layouts[place], SIGNATURES[place], body, length)
            assert fast == strict, f"{fast} is not {strict}"
        return place, _name_kind(strict)


_NUMBERS_OF = {
    "f": (
        "0",
        "-0",
        "1",
        "-1.5",
        "0.1",
        "1e3",
        "-0.0",
        "3.4e38",
        "3.5e38",
        "5e-324",
        "1e400",
        "16777217",
        "65504",
    ),
    "i": (
        "0",
        "-0",
        "1",
        "-1",
        "127",
        "128",
        "2147483647",
        "-2147483648",
        "2147483648",
        "9223372036854775807",
        "1.0",
    ),
    "u": (
        "0",
        "1",
        "255",
        "256",
        "65535",
        "4294967295",
        "18446744073709551615",
        "-1",
        "1e0",
        "18446744073709551616",
    ),
    "b": ("true", "false", "1", "null"),
    "O": ('"a"', '""', '"["', '"\\u00e4"', '"\\u0000"', "1", '"]"'),
}


def _make_data(random: Random, spec: TensorSpec, shape: list[int]) -> str:
    """Return a JSON list for a tensor: flat or nested, of mostly the right length and the right elements."""
    kind = NUMPY_DTYPE[spec.datatype].kind
    few = _NUMBERS_OF[kind][:4] if random.random() < 0.7 else _NUMBERS_OF[kind]
    count = prod(shape) + (random.choice((-1, 1)) if random.random() < 0.05 else 0)
    values = [random.choice(few) for _ in range(max(0, count))]
    if len(shape) > 1 and random.random() < 0.3:
        for size in reversed(shape[1:]):
            values = [
                "[" + ",".join(values[at : at + size]) + "]" for at in range(0, len(values), max(1, size))
            ]
    return "[" + random.choice((",", ", ", ",\n")).join(values) + "]"


def _make_shape(random: Random, spec: TensorSpec) -> list[int]:
    return [random.choice((0, 1, 1, 2, 3)) if size == -1 else size for size in spec.shape]


def _make_wishes(random: Random) -> str:
    return random.choice((
        "", "", "", ',"id":"7"', ',"outputs":[{"name":"y"}]', ',"parameters":{"binary_data_output":true}',
        ',"outputs":[{"name":"z"},{"name":"y","parameters":{"binary_data":true}}]',
        ',"parameters":{"timeout":5}',
    ))  # fmt: skip


def _make_json(random: Random) -> bytes:
    place = random.randrange(len(SIGNATURES))
    entries = []
    for spec in SIGNATURES[place].inputs.values():
        shape = _make_shape(random, spec)
        parts = [
            f'"name":"{spec.name}"', f'"datatype":"{spec.datatype}"', f'"shape":{shape}',
            f'"data":{_make_data(random, spec, shape)}',
        ]  # fmt: skip
        if random.random() < 0.3:
            random.shuffle(parts)
        entries.append("{" + ",".join(parts) + "}")
    return bytes((place,)) + f'{{"inputs":[{",".join(entries)}]{_make_wishes(random)}}}'.encode()


class JsonTarget:
    """Bodies that are all JSON; the first byte of the input chooses what the model takes."""

    name = "json"
    words: Sequence[bytes] = _WORDS
    seeds: Sequence[bytes] = tuple(_text_seeds())

    def __init__(self) -> None:
        self._requests = _Requests()

    def make(self, random: Random) -> bytes:
        """Return a request; see ``engine.Target``."""
        return _make_json(random)

    def check(self, data: bytes) -> Hashable:
        """Compare; see ``engine.Target``."""
        body = data[1:]
        if not body:
            return None
        # A body that says its length is read by the strict reader alone.
        return self._requests.compare(data[0], body, None, len(body))


class BinaryTarget:
    """Bodies with binary tensors: the first byte chooses the model, the next two give the JSON's length."""

    name = "binary"
    words: Sequence[bytes] = (
        *_WORDS,
        b"\0\0\0\0",
        b"\1\0\0\0a",
        b"\xff\xff\xff\xff",
        b"\0\0\x80\x3f",
        b"\0\0\xc0\x7f",
    )

    def __init__(self) -> None:
        self._requests = _Requests()
        self.seeds: Sequence[bytes] = tuple(_binary_seeds())

    def make(self, random: Random) -> bytes:
        """Return a request; see ``engine.Target``."""
        return _make_binary(random)

    def check(self, data: bytes) -> Hashable:
        """Compare; see ``engine.Target``."""
        if len(data) < 3:
            return None
        body, length = data[3:], int.from_bytes(data[1:3], "little")
        if data[2] >= 64:  # no length: the last brace is the end of the JSON
            length = body.rfind(b"}") + 1
        return self._requests.compare(data[0], body, length, length)


def _make_binary(random: Random) -> bytes:
    place = random.randrange(len(SIGNATURES))
    entries, tail = [], b""
    for spec in SIGNATURES[place].inputs.values():
        shape = _make_shape(random, spec)
        if random.random() < 0.2:
            data = f'"data":{_make_data(random, spec, shape)}'
        else:
            size = 4 if spec.datatype == BYTES else NUMPY_DTYPE[spec.datatype].itemsize
            raw = (
                bytes(size * prod(shape)) if spec.datatype == BYTES else random.randbytes(size * prod(shape))
            )
            data = f'"parameters":{{"binary_data_size":{len(raw)}}}'
            tail += raw
        entries.append(f'{{"name":"{spec.name}","datatype":"{spec.datatype}","shape":{shape},{data}}}')
    head = f'{{"inputs":[{",".join(entries)}]{_make_wishes(random)}}}'.encode()
    return bytes((place,)) + len(head).to_bytes(2, "little") + head + tail


def _binary_seeds() -> list[bytes]:
    seeds = []
    for index, datatype, shape, raw in (
        (0, "FP32", "[1,4]", bytes(16)), (0, "FP32", "[0,4]", b""),
        (1, "INT32", "[2]", b"\1\0\0\0\xff\xff\xff\xff"),
        (2, "UINT8", "[1,2]", b"ab"), (3, "INT64", "[]", bytes(8)), (4, "UINT64", "[1,1,2]", bytes(16)),
        (5, "FP16", "[2]", b"\0\x3c\0\x7c"), (6, "FP64", "[1,1]", bytes(8)), (7, "BOOL", "[3]", b"\0\1\2"),
        (8, BYTES, "[2]", b"\1\0\0\0a\0\0\0\0"),
    ):  # fmt: skip
        for extra in ("", ',"parameters":{"binary_data_output":true}'):
            size = f'"parameters":{{"binary_data_size":{len(raw)}}}'
            entry = f'{{"name":"x","datatype":"{datatype}","shape":{shape},{size}}}'
            seeds.append(bytes((index, 0, 255)) + f'{{"inputs":[{entry}]{extra}}}'.encode() + raw)
        seeds.append(bytes((index, 0, 0)) + raw)
    return seeds
