"""Small real models of every format: `y = x @ w`, with `w` of `width` squared random 32-bit weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import flatbuffers  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from numpy.typing import NDArray

from support.build import make_onnx

FULLY_CONNECTED = 9
CUSTOM = 32
FULLY_CONNECTED_OPTIONS = 8


def weights_of(width: int, seed: int = 1) -> NDArray[np.float32]:
    """Give the weights that the models of this module have."""
    return np.random.default_rng(seed).random((width, width), dtype=np.float32)


def make_files(model_format: str, width: int = 16, *, seed: int = 1) -> tuple[bytes, ...]:
    """Give the files of a model: one, or two for OpenVINO."""
    match model_format:
        case "ONNX":
            return (make_onnx(width, seed=seed),)
        case "TFLite":
            return (make_tflite(width, seed=seed),)
        case _:
            return make_openvino(width, seed=seed)


def make_openvino(width: int = 16, *, seed: int = 1) -> tuple[bytes, bytes]:
    """Give the `.xml` and the `.bin` of an IR of version 11, as OpenVINO 2026 writes it."""
    weights = weights_of(width, seed).tobytes()
    row = f"<dim>-1</dim><dim>{width}</dim>"
    square = f"<dim>{width}</dim><dim>{width}</dim>"
    port = '<port id="{id}" precision="FP32"{names}>{dims}</port>'.format
    graph = f"""<?xml version="1.0"?>
<net name="multiply" version="11">
  <layers>
    <layer id="0" name="x" type="Parameter" version="opset1">
      <data shape="?,{width}" element_type="f32"/>
      <output>{port(id=0, names=' names="x"', dims=row)}</output>
    </layer>
    <layer id="1" name="w" type="Const" version="opset1">
      <data element_type="f32" shape="{width}, {width}" offset="0" size="{len(weights)}"/>
      <output>{port(id=0, names="", dims=square)}</output>
    </layer>
    <layer id="2" name="y" type="MatMul" version="opset1">
      <data transpose_a="false" transpose_b="false"/>
      <input>{port(id=0, names="", dims=row)}{port(id=1, names="", dims=square)}</input>
      <output>{port(id=2, names=' names="y"', dims=row)}</output>
    </layer>
    <layer id="3" name="y/sink" type="Result" version="opset1" output_names="y">
      <input>{port(id=0, names="", dims=row)}</input>
    </layer>
  </layers>
  <edges>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
    <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
    <edge from-layer="2" from-port="2" to-layer="3" to-port="0"/>
  </edges>
</net>
"""
    return graph.encode(), weights


@dataclass(frozen=True)
class Tflite:
    """What a TFLite file says of itself; the defaults are those of a sound one."""

    version: int = 3
    graphs: int = 1
    operators: int = 1
    inputs: Sequence[int] = (0,)
    outputs: Sequence[int] = (2,)
    operands: Sequence[int] = (0, 1, -1)
    """The tensors that the operator takes: no bias."""
    code: int = 0
    weights: int = 1
    """Which of the buffers holds the weights."""
    operator_version: int = 1
    custom: str = ""
    """The name of a custom operator in the place of the one built in."""
    claimed_bytes: int = 0
    """The size of weights behind the structure, as files of more than 2 GiB have them."""


def make_tflite(width: int = 16, facts: Tflite = Tflite(), *, seed: int = 1) -> bytes:
    """Give a TFLite file of one operator, with a batch of any size.

    Schema: `tensorflow/compiler/mlir/lite/schema/schema.fbs`; fields by their number there.
    """
    writer = _Writer()
    free, fixed = (-1, width), (1, width)
    matrix = np.ascontiguousarray(weights_of(width, seed).T)  # the operator wants a row for each output
    tensors = [
        writer.tensor("x", fixed, buffer=0, signature=free),
        writer.tensor("w", (width, width), buffer=facts.weights),
        writer.tensor("y", fixed, buffer=0, signature=free),
    ]
    operator = writer.table(
        {
            0: writer.integer(facts.code),
            1: writer.ints(facts.operands),
            2: writer.ints((2,)),
            3: writer.byte(FULLY_CONNECTED_OPTIONS),
            4: writer.reference(writer.table({})),
        }
    )
    graph = writer.table(
        {
            0: writer.references(tensors),
            1: writer.ints(facts.inputs),
            2: writer.ints(facts.outputs),
            3: writer.references([operator] * facts.operators),
        }
    )
    number = CUSTOM if facts.custom else FULLY_CONNECTED
    code = writer.table(
        {
            0: writer.byte(number),
            1: writer.text(facts.custom),
            2: writer.integer(facts.operator_version),
            3: writer.integer(number),
        }
    )
    held = writer.table({0: writer.blob(matrix.tobytes()), 2: writer.long(facts.claimed_bytes)})
    model = writer.table(
        {
            0: writer.integer(facts.version),
            1: writer.references([code]),
            2: writer.references([graph] * facts.graphs),
            4: writer.references([writer.table({}), held]),
        }
    )
    return writer.finish(model)


Field = Callable[[int], None]
"""Puts a value into the slot of the table that is begun."""


class _Writer:
    """Writes tables by the numbers of their fields."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder()

    def tensor(self, name: str, shape: Sequence[int], *, buffer: int, signature: Sequence[int] = ()) -> int:
        fields = {0: self.ints(shape), 2: self.integer(buffer), 3: self.text(name)}
        return self.table(fields | ({7: self.ints(signature)} if signature else {}))

    def table(self, fields: dict[int, Field]) -> int:
        self._builder.StartObject(12)
        for slot, put in fields.items():
            put(slot)
        return int(self._builder.EndObject())

    def integer(self, value: int) -> Field:
        return lambda slot: self._builder.PrependInt32Slot(slot, value, 0)

    def long(self, value: int) -> Field:
        return lambda slot: self._builder.PrependUint64Slot(slot, value, 0)

    def byte(self, value: int) -> Field:
        return lambda slot: self._builder.PrependUint8Slot(slot, value, 0)

    def reference(self, position: int) -> Field:
        return lambda slot: self._builder.PrependUOffsetTRelativeSlot(slot, position, 0)

    def text(self, value: str) -> Field:
        return self.reference(self._builder.CreateString(value))

    def blob(self, value: bytes) -> Field:
        return self.reference(self._builder.CreateByteVector(value))

    def ints(self, values: Sequence[int]) -> Field:
        return self._vector(values, self._builder.PrependInt32)

    def references(self, positions: Sequence[int]) -> Field:
        return self._vector(positions, self._builder.PrependUOffsetTRelative)

    def _vector(self, values: Sequence[int], prepend: Callable[[int], None]) -> Field:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            prepend(value)
        return self.reference(self._builder.EndVector())

    def finish(self, model: int) -> bytes:
        self._builder.Finish(model, file_identifier=b"TFL3")
        return bytes(self._builder.Output())
