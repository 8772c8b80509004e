"""OpenVINO: loads IR (``.xml`` with its ``.bin``) and ``.onnx`` files and compiles them for a device."""

import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgemodel_server.cpus import count_usable_cpus
from edgemodel_server.datatypes import BYTES, Tensor, TensorSpec
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.inference import Signature
from edgemodel_server.runtimes import LoadOptions
from edgemodel_server.runtimes.onnx_external import check_external_data
from edgemodel_server.runtimes.openvino_library import ov

_DATATYPES: Mapping[str, str] = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "string": BYTES,
}
_LEAST, _MOST = -(2**31), 2**31 - 1
_CPU = "CPU"
_CACHE = "CACHE_DIR"


class OpenVinoModel:
    """A model that is compiled for a device, and its inference requests: one per computation under way."""

    def __init__(self, compiled: Any, platform: str, provider: str) -> None:
        self.platform = platform
        self.provider = provider
        self._compiled = compiled
        self._inputs = {_name_port(port): port for port in compiled.inputs}
        self._outputs = {_name_port(port): port for port in compiled.outputs}
        self.signature = Signature(
            inputs={name: _tensor_spec(name, port) for name, port in self._inputs.items()},
            outputs={name: _tensor_spec(name, port) for name, port in self._outputs.items()},
        )
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Compute the named outputs; see ``runtimes.Model``."""
        with self._borrowed() as request:
            for name, array in inputs.items():
                request.set_tensor(self._inputs[name], _to_tensor(name, array))
            request.infer()
            return [_to_array(request.get_tensor(self._outputs[name])) for name in outputs]

    def close(self) -> None:
        """Give the compiled model back; see ``runtimes.Model``."""
        while not self._idle.empty():
            self._idle.get_nowait()
        del self._compiled, self._inputs, self._outputs

    @contextmanager
    def _borrowed(self) -> Iterator[Any]:
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            yield request
        finally:
            self._idle.put(request)


def load(path: Path, options: LoadOptions) -> OpenVinoModel:
    """Load an IR or ONNX file; raises StartError (LoadFailed, ProviderMismatch)."""
    _check_files(path)
    core = ov.Core()
    provider = _choose_provider(core, options)
    properties = _make_properties(options)
    device = f"HETERO:{provider},{_CPU}" if options.cpu_fallback and provider != _CPU else provider
    try:
        compiled = core.compile_model(core.read_model(path), device, properties)
        _check_devices(compiled.get_property("EXECUTION_DEVICES"), provider)
        platform = "openvino_ir" if path.suffix == ".xml" else "openvino_onnx"
        return OpenVinoModel(compiled, platform, provider)
    except StartError:
        raise
    except Exception as error:  # RuntimeError and its like, for every kind of fault
        raise StartError(Reason.LOAD_FAILED, f"{path} cannot be loaded: {_explain(error)}") from error


def _check_files(path: Path) -> None:
    """Raise StartError(LoadFailed) if the model would take its weights from outside of its folder."""
    if path.suffix == ".onnx":
        check_external_data(path)
        return
    weights = path.with_suffix(".bin")
    if weights.is_symlink() and not weights.resolve().is_relative_to(path.parent.resolve()):
        raise StartError(
            Reason.LOAD_FAILED, f"{weights} is a link out of its folder: put the file beside {path}"
        )


def _choose_provider(core: Any, options: LoadOptions) -> str:
    """Return the device to compile for; a real one, for AUTO and its like choose behind one's back."""
    wanted = options.provider or _CPU
    available: list[str] = core.available_devices
    if not any(_is_device(one, wanted) for one in available):
        sentence = f"{wanted} is required, but OpenVINO finds only {', '.join(available)} here"
        raise StartError(Reason.PROVIDER_MISMATCH, sentence)
    return wanted


def _check_devices(used: Sequence[str], provider: str) -> None:
    """Raise StartError(ProviderMismatch) if the compiled model does not run where it should."""
    if not any(_is_device(device, provider) for device in used):
        sentence = f"{provider} is required, but OpenVINO computes the model on {', '.join(used)}"
        raise StartError(Reason.PROVIDER_MISMATCH, sentence)


def _is_device(device: str, wanted: str) -> bool:
    """Say whether a device is the wanted one: ``GPU`` is any of ``GPU.0`` and ``GPU.1``."""
    return device == wanted or device.startswith(f"{wanted}.")


def _make_properties(options: LoadOptions) -> dict[str, str]:
    """Return the user's properties on top of ours.

    By default several requests are computed at once, each by its own threads, and in full precision: left to
    itself, OpenVINO computes FP32 models in bfloat16 or FP16 on processors that are good at it, and one fleet
    would give different answers. It also counts the machine's cores where a container has a share of them.
    """
    properties = dict(options.provider_options)
    if options.provider in (None, _CPU):
        cpus = count_usable_cpus()
        properties.setdefault("INFERENCE_PRECISION_HINT", "f32")
        properties.setdefault("INFERENCE_NUM_THREADS", str(max(cpus, options.threads)))
        properties.setdefault("ENABLE_CPU_PINNING", "NO")
        if "PERFORMANCE_HINT" not in properties:
            properties.setdefault("NUM_STREAMS", str(max(1, cpus // options.threads)))
    _check_cache(properties.get(_CACHE))
    return properties


def _check_cache(folder: str | None) -> None:
    if folder and not (Path(folder).is_dir() and os.access(folder, os.W_OK)):
        sentence = (
            f"{_CACHE}={folder} is no folder that this process may write to: give one, as {_CACHE}=/tmp"
        )
        raise StartError(Reason.LOAD_FAILED, sentence)


def _explain(error: Exception) -> str:
    """Return OpenVINO's message without the places in its source that it comes from."""
    return " ".join(line for line in str(error).splitlines() if not line.startswith("Exception from "))


def _name_port(port: Any) -> str:
    """Return the name of an input or output: IR may give several, or none, and then its layer's counts."""
    names: set[str] = port.get_names()
    return min(names) if names else str(port.get_node().get_friendly_name())


def _tensor_spec(name: str, port: Any) -> TensorSpec:
    kind = port.get_element_type().get_type_name()
    datatype = _DATATYPES.get(kind)
    if datatype is None:
        sentence = f'"{name}" is a tensor of {kind}, which the Open Inference Protocol has no datatype for'
        raise StartError(Reason.LOAD_FAILED, sentence)
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        sentence = f'"{name}" may have any number of dimensions: give the model a fixed rank'
        raise StartError(Reason.LOAD_FAILED, sentence)
    return TensorSpec(name, datatype, tuple(-1 if size.is_dynamic else size.get_length() for size in shape))


def _to_tensor(name: str, array: Tensor) -> Any:
    if array.dtype.hasobject:
        try:
            return ov.Tensor(
                np.array([one.decode() for one in array.reshape(-1)], np.str_).reshape(array.shape)
            )
        except UnicodeDecodeError:
            raise ApiError(400, f'tensor "{name}": OpenVINO strings must be UTF-8') from None
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        _check_range(name, array)
    return ov.Tensor(array, shared_memory=array.flags.writeable and array.flags.c_contiguous)


def _check_range(name: str, array: Tensor) -> None:
    """Refuse what OpenVINO would change without a word: it computes 64-bit integers with 32 bits."""
    if array.size and (array.min() < _LEAST or array.max() > _MOST):
        sentence = f'tensor "{name}": OpenVINO computes integers with 32 bits, and one does not fit'
        raise ApiError(400, sentence)


def _to_array(tensor: Any) -> Tensor:
    """Return a copy: the request computes into the same memory the next time."""
    if tensor.get_element_type() != ov.Type.string:
        copy: Tensor = tensor.data.copy()
        return copy
    texts = tensor.bytes_data
    raw: Tensor = np.empty(texts.size, dtype=np.object_)
    raw[:] = [bytes(one) for one in texts.reshape(-1)]
    return raw.reshape(texts.shape)
