"""The operators of LiteRT: what the resolver of its interpreter finds, built-in and custom ones."""

from __future__ import annotations

from pathlib import Path

import ai_edge_litert  # type: ignore[import-untyped, unused-ignore]
import flatbuffers  # type: ignore[import-untyped, unused-ignore]
from ai_edge_litert.interpreter import (  # type: ignore[import-untyped, unused-ignore]
    Interpreter,
    OpResolverType,
)

from edgemodel_operator.build.inspect.tflite_operators import BUILTIN, CUSTOM

from .probing import ask_all, find_names
from .ranges import Operators, join_versions

_BEYOND = 64
"""No operator has this version yet."""
_LIBRARY = "libpywrap_litert_common.so"
_NAMES = rb"(?<=\0)[A-Z][A-Za-z0-9_]{2,63}(?=\0)"
"""Every text of the library that could name an operator."""
_UNRESOLVED = "unresolved custom op"
_FLEX = "Flex"
"""Stands for operators of TensorFlow, which need a delegate that the wheel does not hold."""


def ask() -> Operators:
    """Give for each operator its versions, those of LiteRT's own custom operators under `custom`."""
    library = Path(ai_edge_litert.__file__).with_name(_LIBRARY)
    names = sorted(find_names(library, _NAMES) - {_FLEX})
    known = [name for name, there in zip(names, ask_all(names, _has_custom), strict=True) if there]
    builtin = {
        name: join_versions(version for version in range(1, _BEYOND) if _has_builtin(number, version))
        for number, name in enumerate(BUILTIN)
        if number != CUSTOM
    }
    return {
        "builtin": {name: ranges for name, ranges in sorted(builtin.items()) if ranges},
        "custom": {name: [[1, 1]] for name in known},
    }


def _has_builtin(number: int, version: int) -> bool:
    """Tell whether the resolver has it: it is asked for all operators of a file before anything else."""
    try:
        _interpret(_write_model(number, version))
    except ValueError:
        return False
    return True


def _has_custom(name: str) -> bool:
    """Tell whether a custom operator has code: those without are let through until the memory is planned."""
    try:
        _interpret(_write_model(CUSTOM, 1, name)).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        return _UNRESOLVED not in str(error)
    return True


def _interpret(model: bytes) -> Interpreter:
    return Interpreter(
        model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )


def _write_model(number: int, version: int, custom: str = "") -> bytes:
    """Write a file that names one operator; a custom one is also in its graph, without inputs and outputs.

    Schema: `tensorflow/compiler/mlir/lite/schema/schema.fbs`; fields by their number there.
    """
    builder = flatbuffers.Builder()
    name = builder.CreateString(custom)
    nothing = _vector(builder, [])
    code = _table(builder, {1: name}, integers={2: version, 3: number}, byte=min(number, 127))
    operator = _table(builder, {1: nothing, 2: nothing})
    operators = _vector(builder, [operator] if custom else [])
    graph = _table(builder, {0: nothing, 1: nothing, 2: nothing, 3: operators})
    codes, graphs = _vector(builder, [code]), _vector(builder, [graph])
    model = _table(builder, {1: codes, 2: graphs, 4: nothing}, integers={0: 3})
    builder.Finish(model, file_identifier=b"TFL3")
    return bytes(builder.Output())


def _vector(builder: flatbuffers.Builder, tables: list[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in tables:
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def _table(
    builder: flatbuffers.Builder,
    references: dict[int, int],
    *,
    integers: dict[int, int] | None = None,
    byte: int = 0,
) -> int:
    builder.StartObject(8)
    builder.PrependInt8Slot(0, byte, 0)
    for slot, value in (integers or {}).items():
        builder.PrependInt32Slot(slot, value, 0)
    for slot, reference in references.items():
        builder.PrependUOffsetTRelativeSlot(slot, reference, 0)
    return int(builder.EndObject())
