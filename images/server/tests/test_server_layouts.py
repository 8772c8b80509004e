"""Requests that repeat are read without being checked again: with the same result, or not at all."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_server import inference
from edgemodel_server.datatypes import TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.inference import InferRequest, Signature
from edgemodel_server.layouts import Layouts

SIGNATURE = Signature(
    {"x": TensorSpec("x", "FP32", (-1, 2))},
    {"y": TensorSpec("y", "FP32", (-1, 2)), "z": TensorSpec("z", "INT64", (-1,))},
)
TWO = Signature(
    {"x": TensorSpec("x", "FP32", (-1, 2)), "i": TensorSpec("i", "INT8", (-1,))}, SIGNATURE.outputs
)


def strictly(body: bytes, signature: Signature = SIGNATURE) -> InferRequest | str:
    """Return what the strict reader says, which is the judge here."""
    try:
        return inference._parse_document(body, memoryview(b""), signature)
    except ApiError as error:
        return error.message


def again(layouts: Layouts, body: bytes) -> InferRequest | str:
    try:
        return layouts.parse(body, None)
    except ApiError as error:
        return error.message


def assert_same(got: InferRequest | str, want: InferRequest | str) -> None:
    if isinstance(got, str) or isinstance(want, str):
        assert got == want
        return
    assert got[:1] + got[2:] == want[:1] + want[2:]
    assert list(got.inputs) == list(want.inputs)
    for name, array in want.inputs.items():
        assert got.inputs[name].dtype == array.dtype
        assert np.array_equal(got.inputs[name], array)


def one(data: str, shape: str = "[1,2]", **more: str) -> bytes:
    fields = {"name": '"x"', "datatype": '"FP32"', "shape": shape, **more, "data": data}
    entry = ",".join(f'"{key}":{value}' for key, value in fields.items())
    return f'{{"inputs":[{{{entry}}}],"outputs":[{{"name":"y"}}]}}'.encode()


@pytest.mark.parametrize(
    "data",
    ["[1,2]", "[3.5,-0.0]", "[1e40,2]", "[1e400,2]", "[true,2]", "[null,2]", '["1",2]', "[1,2,3]", "[1]",
     "[]", "[[1,2]]", "[[1],[2]]", "[1,[2]]", "[[],[1,2]]", "[1,2", "1,2]", "{}", "[1 , 2]", "[01,2]",
     "[1,2]]", "[1,2],\"data\":[3,4]", "[1,2],\"shape\":[2,1]", "[NaN,1]",
     "[9007199254740993,18446744073709551615]"],
)  # fmt: skip
def test_other_data_in_a_known_frame_is_read_as_the_strict_reader_does(data: str) -> None:
    layouts = Layouts(SIGNATURE)
    assert_same(again(layouts, one("[7,8]")), strictly(one("[7,8]")))
    assert layouts._frames
    for body in (one(data), one("[5,6]"), one(data)):
        assert_same(again(layouts, body), strictly(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"parameters":{"data":[1,2]},"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"data":[1,2]},"data":[1,2]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[9,9],"data":[1,2]}]}',
        b'{"x":{"data":[1,2]},"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"x\\"data":[1,2],"data":[1,2]}]}',
        b'{"inputs":[],"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
        b'{"id":"\\"data\\":[1,2]","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
    ],
)
def test_an_array_that_only_looks_like_the_tensor_is_never_taken_for_it(body: bytes) -> None:
    layouts = Layouts(SIGNATURE)
    for text in (
        body,
        body.replace(b"[1,2]", b"[3,4]", 1),
        body[::-1].replace(b"]2,1[", b"]6,5[", 1)[::-1],
        body,
    ):
        assert_same(again(layouts, text), strictly(text))


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(),
    st.text(max_size=3),
)  # fmt: skip
NESTED = st.recursive(st.lists(NUMBERS, max_size=4), lambda inner: st.lists(inner | NUMBERS, max_size=3))


@given(
    st.lists(
        st.tuples(NESTED, st.lists(st.integers(0, 3), max_size=3), st.sampled_from(["x", "i"])),
        min_size=1, max_size=2,
    ),
    st.sampled_from(["FP32", "INT8", "FP64"]),
    st.lists(NESTED, max_size=3),
)  # fmt: skip
def test_any_sequence_of_requests_is_read_as_the_strict_reader_does(
    tensors: list[tuple[Any, list[int], str]], datatype: str, others: list[Any]
) -> None:
    layouts = Layouts(TWO)
    entries = [
        {"name": name, "datatype": datatype, "shape": shape, "data": data} for data, shape, name in tensors
    ]
    bodies = [json.dumps({"inputs": entries}).encode()]
    bodies += [
        json.dumps({"inputs": [{**entries[0], "data": data}, *entries[1:]]}).encode() for data in others
    ]
    for body in [*bodies, *bodies]:
        assert_same(again(layouts, body), strictly(body, TWO))


@given(st.integers(1, 5), st.lists(st.integers(-3, 3), min_size=1, max_size=6))
def test_known_binary_layouts_fit_only_what_has_their_size(rows: int, slips: list[int]) -> None:
    layouts = Layouts(SIGNATURE)
    size = rows * 8
    entry = {"name": "x", "datatype": "FP32", "shape": [rows, 2], "parameters": {"binary_data_size": size}}
    head = orjson.dumps({"inputs": [entry]})
    data = np.arange(rows * 2, dtype=np.float32).tobytes()
    assert np.array_equal(layouts.parse(head + data, len(head)).inputs["x"].ravel(), range(rows * 2))
    for slip in slips:
        body = head + data[: size + slip] + bytes(max(0, slip))
        try:
            got = layouts.parse(body, len(head)).inputs["x"]
        except ApiError:
            assert slip != 0
        else:
            assert slip == 0
            assert got.tobytes() == data


def test_what_never_comes_again_does_not_fill_the_memory() -> None:
    layouts = Layouts(SIGNATURE)
    for number in range(2000):
        layouts.parse(one("[1,2]", note=f'"{number}"').replace(b'"note"', b'"parameters"').replace(
            f'"{number}"'.encode(), b'{"n":%d}' % number), None)  # fmt: skip
    assert 0 < len(layouts._frames) <= 256
