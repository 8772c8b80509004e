"""PyTorch to ONNX: programs of `torch.export` by its exporter, TorchScript modules by the one for them.

Runs in the converting process alone: it imports torch. What is loaded are programs in PyTorch's own two
languages for graphs, not Python: pickled objects are refused (`TORCH_FORCE_WEIGHTS_ONLY_LOAD`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch  # type: ignore[import-not-found, unused-ignore]
from numpy.typing import NDArray

from edgemodel_operator.build.convert.job import Input, Job
from edgemodel_operator.build.convert.trial import check_outputs, datatype_of, make_inputs
from edgemodel_operator.build.inspect.objection import Objection

NAME = "model.onnx"
WEIGHTS = "model.onnx.data"
MOST_INLINE_BYTES = 1024**3
"""Beyond it the weights go into a file of their own: Protocol Buffers end at 2 GiB."""


def convert_export(job: Job) -> list[str]:
    """Convert a program of `torch.export`; gives the names of the files. Raises Objection."""
    try:
        program = torch.export.load(job.source)
    except Exception as error:  # whatever PyTorch raises on bytes of others
        raise Objection(f"It cannot be loaded as a program of torch.export: {_first_line(error)}") from error
    examples, by_name = program.example_inputs or ((), {})
    if not examples or by_name:
        raise Objection(
            "It holds no example of its inputs by position: export it with positional inputs alone."
        )
    if not all(isinstance(one, torch.Tensor) for one in examples):
        raise Objection("It takes something else than tensors: export it with tensors alone.")
    shapes = [
        Input(f"input_{number}", datatype_of(one.numpy().dtype), tuple(one.shape))
        for number, one in enumerate(examples)
    ]
    tried = make_inputs(shapes)
    expected = _run(program.module(), tried)
    try:
        exported = torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:
        raise Objection(f"PyTorch cannot export it to ONNX: {_first_line(error)}") from error
    return _finish(job, exported.model_proto, tried, expected)


def convert_script(job: Job) -> list[str]:
    """Convert a TorchScript module, whose inputs the job tells; gives the names of the files."""
    try:
        module = torch.jit.load(str(job.source), map_location="cpu").eval()
    except Exception as error:
        raise Objection(f"It cannot be loaded as a TorchScript module: {_first_line(error)}") from error
    tried = make_inputs(job.inputs)
    try:
        expected = _run(module, tried)
    except Exception as error:
        raise Objection(
            f"It does not compute the `inputs` that the spec gives it: {_first_line(error)}"
        ) from error
    unfinished = job.target / "unfinished.onnx"
    names = [one.name for one in job.inputs]
    outputs = [f"output_{number}" for number in range(len(expected))]
    try:
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(one) for one in tried),
            str(unfinished),
            dynamo=False,  # the other exporter takes no TorchScript
            input_names=names,
            output_names=outputs,
            dynamic_axes={one.name: one.varying for one in job.inputs if one.varying},
        )
    except Exception as error:
        raise Objection(f"PyTorch cannot export it to ONNX: {_first_line(error)}") from error
    model = onnx.load(str(unfinished))
    unfinished.unlink()
    return _finish(job, model, tried, expected)


def _run(module: Any, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    with torch.no_grad():
        given = module(*(torch.from_numpy(one) for one in inputs))
    outputs = [given] if isinstance(given, torch.Tensor) else given
    if isinstance(outputs, dict):
        outputs = outputs.values()
    if not all(isinstance(one, torch.Tensor) for one in outputs):
        raise Objection("It gives something else than tensors: export it so that it gives tensors alone.")
    return [one.numpy() for one in outputs]


def _finish(
    job: Job, model: Any, tried: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]
) -> list[str]:
    normalise(model)
    path = job.target / NAME
    names = _write(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()
    if len(given) != len(tried):
        raise Objection(f"It takes {len(given)} inputs as ONNX, and {len(tried)} before.")
    answers = session.run(None, {one.name: array for one, array in zip(given, tried, strict=True)})
    check_outputs(expected, [np.asarray(answer) for answer in answers])
    return names


def normalise(model: Any) -> None:
    """Take out what tells of the machine that made the model, and changes nothing that it computes."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.graph.name = "main"
    for part in (model.graph, *model.functions):
        _forget(part)
        for node in part.node:
            _forget(node)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        _forget(value)


def _forget(part: Any) -> None:
    part.ClearField("metadata_props")
    part.ClearField("doc_string")


def _write(model: Any, path: Path) -> list[str]:
    if model.ByteSize() <= MOST_INLINE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return [NAME]
    onnx.save_model(model, str(path), save_as_external_data=True, location=WEIGHTS)
    return [NAME, WEIGHTS]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
