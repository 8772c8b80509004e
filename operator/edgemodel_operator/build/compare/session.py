"""Running a model once in ONNX Runtime, as plainly and as small as it can be run.

Only the comparing process may import this module: it imports ONNX Runtime, which reads models natively.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read by the library when it is loaded
os.environ.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)  # a model has no say in how it is loaded

import onnxruntime as ort

from edgemodel_operator.build.compare.inputs import FREE_SIZES, Signature, Tensors, make_inputs

_FATAL = 4


class Unanswered(Exception):  # noqa: N818 - reads as the fact it states
    """The model gives no answer here; the message says why."""


def open_session(model: Path) -> Any:
    """Load a model; raises Unanswered.

    One thread, so that sums are always made in the same order, and no optimization, so that both models take
    the very same steps. Without arenas and repacked weights it needs the least memory.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = _FATAL
    try:
        return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises a dozen unrelated classes for a bad file
        raise Unanswered(f"it cannot be loaded: {_first_line(error)}") from error


def answer_anything(model: Path) -> list[Any]:
    """Give the answer to the first made-up inputs that the model takes; the same models take the same.

    Raises Unanswered when it takes none.
    """
    session = open_session(model)
    why = "its inputs are of types that cannot be made up"
    for free in FREE_SIZES:
        inputs = make_inputs(_signatures(session), free)
        if inputs is None:
            continue
        try:
            return _run(session, inputs)
        except Unanswered as error:
            why = str(error)
    raise Unanswered(why)


def _run(session: Any, inputs: Tensors) -> list[Any]:
    try:
        return list(session.run(None, dict(inputs)))
    except Exception as error:  # as above
        raise Unanswered(f"it refuses made-up inputs: {_first_line(error)}") from error


def _signatures(session: Any) -> list[Signature]:
    return [Signature(node.name, node.type, node.shape) for node in session.get_inputs()]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
