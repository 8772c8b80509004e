"""ONNX Runtime: loads ``.onnx`` files and runs them on the execution provider that was asked for."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = (
    "1"  # read by the library when it is loaded: must stand before the import
)
os.environ.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)  # a model has no say in how it is loaded

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped, unused-ignore]
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edgemodel_server.datatypes import BYTES, Tensor, TensorSpec
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.inference import Signature
from edgemodel_server.runtimes import LoadOptions
from edgemodel_server.runtimes.native_output import logged_native_output
from edgemodel_server.runtimes.onnx_external import check_external_data
from edgemodel_server.runtimes.onnx_providers import CPU, check_placement, choose_provider, record_placement
from edgemodel_server.runtimes.onnx_slot import OnnxSlot
from edgemodel_server.runtimes.slot import Geometry

_DATATYPES: Mapping[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": BYTES,
}
_ERROR, _FATAL = (
    3,
    4,
)  # ONNX Runtime's own log levels; what a session would log as an error, it raises as well


class OnnxModel:
    """A model in an ONNX Runtime session."""

    platform = "onnxruntime_onnx"

    def __init__(self, session: ort.InferenceSession, provider: str) -> None:
        self.provider = provider
        self._session = session
        self.signature = Signature(
            inputs={node.name: _tensor_spec(node) for node in session.get_inputs()},
            outputs={node.name: _tensor_spec(node) for node in session.get_outputs()},
        )
        self._text_inputs = [spec.name for spec in self.signature.inputs.values() if spec.datatype == BYTES]

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Compute the named outputs; see ``runtimes.Model``."""
        feed: Mapping[str, Tensor] = inputs
        if self._text_inputs:
            feed = {
                name: _to_text(name, array) if array.dtype.hasobject else array
                for name, array in inputs.items()
            }
        try:
            results: list[Tensor] = self._session.run(outputs, feed)
        except ort_errors.InvalidArgument as error:
            raise ApiError(400, f"the model refuses these inputs: {error}") from error
        return [_to_bytes(array) if array.dtype.hasobject else array for array in results]

    def bind(self, geometry: Geometry) -> OnnxSlot | None:
        """Return bound memory for these shapes; see ``slot.Binding``."""
        if self.provider != CPU:  # its memory is elsewhere
            return None
        return OnnxSlot(self._session, self.signature, geometry)

    def shrink(self, inputs: Mapping[str, Tensor]) -> None:
        """Compute once more, and give back what larger computations needed; see ``runtimes.Shrinking``."""
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run(list(self.signature.outputs), dict(inputs), options)

    def close(self) -> None:
        """Give the session back; see ``runtimes.Model``."""
        del self._session


def load(path: Path, options: LoadOptions) -> OnnxModel:
    """Load an ONNX file; raises StartError (LoadFailed, ProviderMismatch)."""
    provider = choose_provider(options)
    check_external_data(path)
    ort.set_default_logger_severity(_ERROR)
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    record_placement(settings, provider)
    chosen = [(provider, dict(options.provider_options))]
    try:
        with logged_native_output():
            session = ort.InferenceSession(str(path), settings, providers=chosen, enable_fallback=0)
        check_placement(session, provider, options)
        return OnnxModel(session, provider)
    except StartError:
        raise
    except Exception as error:  # the library raises a dozen unrelated classes for a bad file
        raise StartError(Reason.LOAD_FAILED, f"{path} cannot be loaded: {error}") from error


def _tensor_spec(node: Any) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        sentence = (
            f'"{node.name}" is a {node.type}, which the Open Inference Protocol has no tensor datatype for'
        )
        raise StartError(Reason.LOAD_FAILED, sentence)
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(node.name, datatype, shape)


def _to_text(name: str, array: Tensor) -> Tensor:
    """Return the strings that ONNX Runtime wants for a tensor of ``bytes``."""
    text: Tensor = np.empty(array.size, dtype=np.object_)
    try:
        text[:] = [element.decode() for element in array.reshape(-1)]
    except UnicodeDecodeError:
        raise ApiError(400, f'tensor "{name}": ONNX strings must be UTF-8') from None
    return text.reshape(array.shape)


def _to_bytes(array: Tensor) -> Tensor:
    """Return the ``bytes`` of a tensor of strings."""
    raw: Tensor = np.empty(array.size, dtype=np.object_)
    raw[:] = [element.encode() for element in array.reshape(-1)]
    return raw.reshape(array.shape)
