"""Reading Protocol Buffers by offsets, against what protobuf itself says."""

from __future__ import annotations

import io

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.shard.wire import BYTES, VARINT, WireFile, tag, text_field, varint


def open_bytes(content: bytes, max_fields: int = 1000) -> WireFile:
    return WireFile(io.BytesIO(content), len(content), max_fields=max_fields)


@given(st.integers(0, 2**64 - 1))
def test_numbers_are_read_as_they_are_written(value: int) -> None:
    content = tag(3, VARINT) + varint(value)
    (field,) = open_bytes(content).fields(0, len(content))
    assert (field.number, field.begin, field.end) == (3, 0, len(content))
    assert open_bytes(content).integer(field) == value


@given(st.text(max_size=40), st.binary(max_size=100_000), st.integers(0, 2**31 - 1))
def test_fields_lie_where_protobuf_put_them(name: str, raw: bytes, kind: int) -> None:
    tensor = onnx.TensorProto(name=name, raw_data=raw, data_type=kind, double_data=[1.5], float_data=[2.5])
    content = tensor.SerializeToString()
    found = {field.number: field for field in open_bytes(content).fields(0, len(content))}
    assert open_bytes(content).integer(found[2]) == kind
    assert content[found[9].start : found[9].end] == raw
    assert open_bytes(content).read(found[8].start, found[8].end) == name.encode()
    assert sum(field.end - field.begin for field in found.values()) == len(content)


@given(st.binary(max_size=64))
def test_any_bytes_are_walked_or_refused(content: bytes) -> None:
    file = open_bytes(content)
    try:
        fields = list(file.fields(0, len(content)))
    except Objection:
        return
    assert [field.begin for field in fields] == [0, *(field.end for field in fields[:-1])][: len(fields)]
    assert not fields or fields[-1].end == len(content)


def test_a_file_of_endless_parts_is_refused_before_it_takes_long() -> None:
    content = b"\x08\x01" * 101
    with pytest.raises(Objection, match="more parts than any model has"):
        list(open_bytes(content, max_fields=100).fields(0, len(content)))


def test_the_parts_of_all_messages_count_together() -> None:
    content = text_field(1, b"\x08\x01" * 60)
    file = open_bytes(content, max_fields=100)
    (field,) = file.fields(0, len(content))
    list(file.fields(field.start, field.end))
    with pytest.raises(Objection, match="more parts"):
        list(file.fields(field.start, field.end))


def test_a_number_is_no_message() -> None:
    content = text_field(1, b"x")
    (field,) = open_bytes(content).fields(0, len(content))
    assert field.kind == BYTES
    with pytest.raises(Objection, match="wrong type"):
        open_bytes(content).integer(field)
