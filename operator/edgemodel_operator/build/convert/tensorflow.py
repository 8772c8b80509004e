"""Keras models and SavedModels to TFLite, by TensorFlow's converter.

Runs in the converting process alone: it imports TensorFlow. A Keras model is loaded in its safe mode, which
takes no code (lambdas); a SavedModel that would touch files or call back into Python is refused unloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found, import-untyped, unused-ignore]
import numpy as np
import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from tensorflow.core.protobuf import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    saved_model_pb2,
)

from edgemodel_operator.build.convert.job import Input, Job
from edgemodel_operator.build.convert.trial import check_outputs, datatype_of, make_inputs
from edgemodel_operator.build.inspect.objection import Objection

NAME = "model.tflite"
SIGNATURE = "serving_default"
FORBIDDEN = frozenset(
    {
        "EagerPyFunc", "PyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "MatchingFiles", "Save",
        "SaveSlices", "TextLineDataset", "TFRecordDataset", "FixedLengthRecordDataset", "DebugIdentityV3",
    }
)  # fmt: skip
"""Operations that reach beyond the model. What saves and restores its variables, every SavedModel has."""


def convert_keras(job: Job) -> list[str]:
    """Convert a `.keras` file; gives the names of the files. Raises Objection."""
    try:
        model = keras.saving.load_model(job.source, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras raises on bytes of others
        raise Objection(f"It cannot be loaded as a Keras model: {_first_line(error)}") from error
    inputs = [_input(tensor.name, tensor.dtype, tensor.shape) for tensor in model.inputs]
    tried = make_inputs(inputs)
    tensors = [tf.constant(one) for one in tried]
    given = model(tensors if len(tensors) > 1 else tensors[0], training=False)
    expected = {str(number): _array(one) for number, one in enumerate(tf.nest.flatten(given))}
    content = _convert(tf.lite.TFLiteConverter.from_keras_model(model))
    return _finish(job, content, dict(zip((one.name for one in inputs), tried, strict=True)), expected)


def convert_saved_model(job: Job) -> list[str]:
    """Convert the signature `serving_default` of a SavedModel; gives the names of the files."""
    folder = job.source.parent
    check_operations(job.source)
    try:
        signature = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
    except KeyError as error:
        raise Objection(f"It has no signature {SIGNATURE!r}: save it with one.") from error
    except Exception as error:
        raise Objection(f"It cannot be loaded as a SavedModel: {_first_line(error)}") from error
    described = signature.structured_input_signature[1]
    inputs = [_input(name, spec.dtype.name, spec.shape) for name, spec in sorted(described.items())]
    tried = dict(zip((one.name for one in inputs), make_inputs(inputs), strict=True))
    given = signature(**{name: tf.constant(one) for name, one in tried.items()})
    expected = {name: _array(one) for name, one in given.items()}
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[SIGNATURE])
    return _finish(job, _convert(converter), tried, expected)


def check_operations(path: Path) -> None:
    """Refuse a SavedModel with operations that reach beyond it; raises Objection. Reads, and runs nothing."""
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:
        raise Objection("Its saved_model.pb cannot be decoded.") from error
    found = sorted({node.op for node in _nodes(model)} & FORBIDDEN)
    if found:
        raise Objection(f"It reaches beyond itself ({', '.join(found)}): save it without them.")


def _nodes(model: Any) -> Iterator[Any]:
    for graph in model.meta_graphs:
        yield from graph.graph_def.node
        for function in graph.graph_def.library.function:
            yield from function.node_def


def _convert(converter: Any) -> bytes:
    try:
        return bytes(converter.convert())
    except Exception as error:
        raise Objection(f"TensorFlow cannot convert it to TFLite: {_first_line(error)}") from error


def _finish(
    job: Job, content: bytes, tried: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> list[str]:
    (job.target / NAME).write_bytes(content)
    given = _runner(content, tried)(**tried)
    # Where both name their outputs alike, the order may differ; where they do not, it is the same.
    order = expected.keys() if expected.keys() == given.keys() else given.keys()
    check_outputs(list(expected.values()), [np.asarray(given[name]) for name in order])
    return [NAME]


def _runner(content: bytes, tried: Mapping[str, NDArray[Any]]) -> Any:
    interpreter = Interpreter(model_content=content)
    runner = interpreter.get_signature_runner()
    names = sorted(runner.get_input_details())
    if names != sorted(tried):
        raise Objection(f"It takes {', '.join(names)} as TFLite, and {', '.join(sorted(tried))} before.")
    return runner


def _input(name: str, dtype: str, shape: Sequence[int | None]) -> Input:
    return Input(
        name, datatype_of(np.dtype(dtype)), tuple(-1 if size is None else int(size) for size in shape)
    )


def _array(tensor: Any) -> NDArray[Any]:
    return np.asarray(tensor)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
