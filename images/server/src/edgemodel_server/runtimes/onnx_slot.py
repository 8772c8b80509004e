"""ONNX Runtime's I/O binding: a run without looking at a single Python object of the request."""

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped, unused-ignore]

from edgemodel_server.datatypes import NUMPY_DTYPE, Tensor
from edgemodel_server.inference import Signature
from edgemodel_server.runtimes.slot import Geometry


class OnnxSlot:
    """Input and output memory of one session, bound once for each number of rows."""

    def __init__(self, session: ort.InferenceSession, signature: Signature, geometry: Geometry) -> None:
        self._session = session
        self._batched = geometry.rows > 0
        self._bindings: dict[int, ort.IOBinding] = {}
        rows = geometry.rows
        self._inputs = {
            name: _allocate(signature.inputs[name].datatype, shape, rows)
            for name, shape in geometry.inputs.items()
        }
        self._outputs = {
            name: _allocate(signature.outputs[name].datatype, shape, rows)
            for name, shape in geometry.outputs.items()
        }
        self.inputs: list[Tensor] = list(self._inputs.values())
        self._results: list[Tensor] = list(self._outputs.values())

    def run(self, rows: int) -> list[Tensor]:
        """Compute the first ``rows`` rows; see ``slot.Slot``."""
        binding = self._bindings.get(rows)
        if binding is None:
            binding = self._bindings[rows] = self._bind(rows)
        self._session.run_with_iobinding(binding)
        return self._results

    def _bind(self, rows: int) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, array in self._inputs.items():
            shape = self._shape(array, rows)
            binding.bind_input(name, "cpu", 0, array.dtype.type, shape, array.ctypes.data)
        for name, array in self._outputs.items():
            shape = self._shape(array, rows)
            binding.bind_output(name, "cpu", 0, array.dtype.type, shape, array.ctypes.data)
        return binding

    def _shape(self, array: Tensor, rows: int) -> list[int]:
        return [rows, *array.shape[1:]] if self._batched else list(array.shape)


def _allocate(datatype: str, shape: tuple[int, ...], rows: int) -> Tensor:
    return np.zeros((rows, *shape[1:]) if rows else shape, dtype=NUMPY_DTYPE[datatype])
