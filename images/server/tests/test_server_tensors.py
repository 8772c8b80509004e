"""Every datatype survives both encodings bit by bit, and nothing that is not a tensor passes for one."""

import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.tensors import decode_binary, decode_json, encode_binary, encode_json, parse_shape

SHAPES = st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def tensors(datatype: str, *, finite: bool) -> st.SearchStrategy[Tensor]:
    if datatype == BYTES:
        text = st.text().map(str.encode)
        elements: Any = text if finite else text | st.binary()
        return st_numpy.arrays(np.object_, SHAPES, elements=elements, fill=st.just(b""))
    limits: dict[str, Any] = {"allow_nan": not finite, "allow_infinity": not finite}
    options = limits if datatype.startswith("FP") else {}
    dtype = NUMPY_DTYPE[datatype]
    return st_numpy.arrays(dtype, SHAPES, elements=st_numpy.from_dtype(dtype, **options))


def typed_tensors(*, finite: bool) -> st.SearchStrategy[tuple[str, Tensor]]:
    return st.sampled_from(sorted(NUMPY_DTYPE)).flatmap(
        lambda datatype: st.tuples(st.just(datatype), tensors(datatype, finite=finite))
    )


def assert_same(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if want.dtype.hasobject:
        assert got.tolist() == want.tolist()
    else:
        assert got.tobytes() == want.tobytes()


@given(typed_tensors(finite=False), st.integers(0, 7))
def test_binary_round_trip_is_exact_at_any_alignment(case: tuple[str, Tensor], offset: int) -> None:
    datatype, want = case
    wire = bytes(encode_binary(datatype, want))
    shifted = memoryview(bytes(offset) + wire)[offset:]
    got = decode_binary("x", datatype, want.shape, shifted)
    assert_same(got, want)
    assert got.flags.aligned


@given(typed_tensors(finite=True))
def test_json_round_trip_is_exact_flat(case: tuple[str, Tensor]) -> None:
    datatype, want = case
    text = orjson.dumps(encode_json("x", datatype, want), option=orjson.OPT_SERIALIZE_NUMPY)
    assert_same(decode_json("x", datatype, want.shape, orjson.loads(text)), want)


@given(typed_tensors(finite=True).filter(lambda case: case[1].ndim > 0))
def test_json_data_may_be_nested_as_its_shape(case: tuple[str, Tensor]) -> None:
    datatype, want = case
    nested = (
        want.tolist() if datatype != BYTES else np.vectorize(bytes.decode, otypes=[object])(want).tolist()
    )
    assert_same(decode_json("x", datatype, want.shape, orjson.loads(orjson.dumps(nested))), want)


def test_binary_numbers_are_little_endian() -> None:
    assert bytes(encode_binary("UINT32", np.array([1, 256], dtype=">u4"))) == b"\1\0\0\0\0\1\0\0"


def test_binary_bytes_are_length_prefixed() -> None:
    array = np.array([b"ab", b""], dtype=np.object_)
    assert encode_binary("BYTES", array) == b"\2\0\0\0ab\0\0\0\0"


def test_any_nonzero_byte_is_true() -> None:
    array = decode_binary("x", "BOOL", (3,), memoryview(b"\0\1\xff"))
    assert array.tobytes() == b"\0\1\1"


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", (2,), b"\0" * 7),
        ("FP32", (2,), b"\0" * 9),
        ("INT8", (), b""),
        ("BYTES", (1,), b""),
        ("BYTES", (1,), b"\1\0\0"),
        ("BYTES", (1,), b"\2\0\0\0a"),
        ("BYTES", (1,), b"\1\0\0\0ab"),
        ("BYTES", (1,), b"\xff\xff\xff\xffa"),
        ("BYTES", (2,), b"\1\0\0\0a"),
        ("BYTES", (0,), b"\0\0\0\0"),
    ],
)
def test_binary_data_of_the_wrong_size_is_refused(datatype: str, shape: tuple[int, ...], raw: bytes) -> None:
    with pytest.raises(ApiError, match=r"tensor \"x\"") as caught:
        decode_binary("x", datatype, shape, memoryview(raw))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "sentence"),
    [
        ("FP32", (1,), [None], "must not hold null"),
        ("FP32", (1,), [True], "must not hold true or false"),
        ("FP32", (1,), ["1"], "must not hold a string"),
        ("FP32", (1,), [{}], "must not hold an object"),
        ("FP32", (1,), [1e39], "outside the range of FP32"),
        ("FP16", (1,), [70000], "outside the range of FP16"),
        ("FP64", (1,), [10**400], "outside the range of FP64"),
        ("INT32", (1,), [1.0], "must not hold a fraction"),
        ("INT32", (1,), [True], "must not hold true or false"),
        ("INT8", (1,), [128], "outside the range of INT8"),
        ("UINT8", (1,), [-1], "outside the range of UINT8"),
        ("UINT64", (1,), [-1], "outside the range of UINT64"),
        ("UINT64", (1,), [2.0**64], "must not hold a fraction or a huge number"),
        ("BOOL", (1,), [1], "must not hold an integer"),
        ("BYTES", (1,), [1], "must not hold an integer"),
        ("FP32", (2,), [1], "holds 2 elements, data has 1"),
        ("FP32", (), [], "holds 1 elements, data has 0"),
        ("FP32", (1,), [[1]], "does not follow shape [1]"),
        ("FP32", (2, 2), [[1, 2, 3], [4]], "does not follow shape [2, 2]"),
        ("FP32", (2, 2), [[1, 2], 3], "does not follow shape [2, 2]"),
        ("FP32", (2, 2), [[1, 2, 3, 4]], "does not follow shape [2, 2]"),
        ("FP32", (2, 2), [1, [2], 3, 4], "must not hold a nested list"),
        ("FP32", (1,), 1, "data must be a list"),
        ("FP32", (1,), "1", "data must be a list"),
    ],
)
def test_json_data_that_is_not_exactly_the_tensor_is_refused(
    datatype: str, shape: tuple[int, ...], values: object, sentence: str
) -> None:
    with pytest.raises(ApiError, match=re.escape(sentence)) as caught:
        decode_json("x", datatype, shape, values)
    assert caught.value.status == 400


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_answers_never_turn_a_value_into_null(value: float) -> None:
    with pytest.raises(ApiError, match="binary_data"):
        encode_json("y", "FP32", np.array([1, value], dtype=np.float32))


def test_json_answers_refuse_bytes_that_are_no_text() -> None:
    with pytest.raises(ApiError, match="not UTF-8"):
        encode_json("y", "BYTES", np.array([b"\xff"], dtype=np.object_))


@pytest.mark.parametrize("shape", [None, 3, "3", [-1], [1.0], [True], [[1]], {"0": 1}])
def test_shapes_are_lists_of_sizes(shape: object) -> None:
    with pytest.raises(ApiError, match="shape must be"):
        parse_shape("x", shape)


@pytest.mark.parametrize(
    ("shape", "want"), [((2, 3), True), ((0, 3), True), ((2, 4), False), ((3,), False), ((1, 2, 3), False)]
)
def test_free_dimensions_take_any_size_and_fixed_ones_only_theirs(shape: tuple[int, ...], want: bool) -> None:
    assert TensorSpec("x", "FP32", (-1, 3)).accepts(shape) is want
