"""LiteRT: loads ``.tflite`` files and runs them on the CPU (XNNPACK), or on the library of a delegate."""

import queue
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped, unused-ignore]

from edgemodel_server.cpus import count_usable_cpus
from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import Reason, StartError
from edgemodel_server.inference import Signature
from edgemodel_server.log import log_warning
from edgemodel_server.runtimes import LoadOptions
from edgemodel_server.runtimes.litert_provider import (
    check_delegate,
    find_provider,
    has_variables,
    make_delegates,
)
from edgemodel_server.runtimes.native_output import logged_native_output
from edgemodel_server.runtimes.trial import try_loading

_DATATYPES: Mapping[type, str] = {
    np.bytes_: BYTES,
    **{dtype.type: name for name, dtype in NUMPY_DTYPE.items() if name != BYTES},
}


class LiteRtModel:
    """A model in one or more interpreters.

    An interpreter computes one request at a time, so that further ones are made when requests overlap, up to
    one per usable processor. Each costs its working memory and, for XNNPACK, a packed copy of the weights;
    the file is mapped once. A delegate's device computes one request at a time anyway: it gets one.

    The protocol knows no sequences, so that every request meets the model in its first state. Variables that
    LiteRT cannot set back cost a new interpreter for each request.
    """

    platform = "litert_tflite"

    def __init__(self, path: Path, options: LoadOptions) -> None:
        self._path = path
        self._options = options
        self._idle: queue.LifoQueue[_Instance] = queue.LifoQueue()
        self._lock = Lock()
        self._missing = (1 if options.delegate else count_usable_cpus()) - 1
        first = _Instance(path, options)
        self.signature = first.signature
        self.provider = first.provider
        self._idle.put(first)

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Compute the named outputs; see ``runtimes.Model``."""
        with self._borrowed() as instance:
            return instance.run(inputs, outputs)

    def close(self) -> None:
        """Give the interpreters back; see ``runtimes.Model``."""
        self._missing = 0
        while not self._idle.empty():
            self._idle.get_nowait()

    @contextmanager
    def _borrowed(self) -> Iterator["_Instance"]:
        instance = self._take()
        try:
            if instance.spent:
                instance = _Instance(self._path, self._options)
            yield instance
        finally:
            self._idle.put(instance)

    def _take(self) -> "_Instance":
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            another = self._missing > 0
            self._missing -= another
        if another:
            try:
                return _Instance(self._path, self._options)
            except Exception as error:  # out of memory, most likely: those that exist can do it, too
                log_warning("no further interpreter", model=str(self._path), error=str(error))
        return self._idle.get()


class _Instance:
    """One interpreter, with its tensors by name."""

    def __init__(self, path: Path, options: LoadOptions) -> None:
        self._interpreter: Any = Interpreter(
            str(path), experimental_delegates=make_delegates(options), num_threads=options.threads
        )
        self._keeps_state = has_variables(self._interpreter)
        self.spent = False
        self.provider = self._allocate(options)
        self._inputs, self._outputs = _name_tensors(self._interpreter)
        self.signature = Signature(
            inputs={name: _tensor_spec(name, detail) for name, detail in self._inputs.items()},
            outputs={name: _tensor_spec(name, detail) for name, detail in self._outputs.items()},
        )
        self._shapes = {name: tuple(map(int, detail["shape"])) for name, detail in self._inputs.items()}

    def _allocate(self, options: LoadOptions) -> str:
        """Plan the memory; returns the provider."""
        if options.delegate is not None:
            provider = check_delegate(self._interpreter, options.delegate, options)
            self._interpreter.allocate_tensors()
            return provider
        self._interpreter.allocate_tensors()
        return find_provider(self._interpreter, options)

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        self.spent = self._keeps_state
        self._fit(inputs)
        interpreter = self._interpreter
        interpreter.reset_all_variables()
        for name, array in inputs.items():
            interpreter.set_tensor(self._inputs[name]["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(self._outputs[name]["index"]) for name in outputs]

    def _fit(self, inputs: Mapping[str, Tensor]) -> None:
        """Plan the memory anew where a dynamic dimension has another size than in the last request."""
        changed = {name: array.shape for name, array in inputs.items() if array.shape != self._shapes[name]}
        if not changed:
            return
        for name, shape in changed.items():
            self._shapes[name] = (-1,)  # whatever fails below: the next request must try again
            self._interpreter.resize_tensor_input(self._inputs[name]["index"], shape)
        self._interpreter.allocate_tensors()
        self._shapes.update(changed)


def load(path: Path, options: LoadOptions) -> LiteRtModel:
    """Load a TFLite file that a trial has shown to be harmless; raises StartError (see ``runtimes``)."""
    try_loading(__name__, path, options)
    return load_untried(path, options)


def load_untried(path: Path, options: LoadOptions) -> LiteRtModel:
    """Load a TFLite file, which may crash the process; raises StartError (LoadFailed, ProviderMismatch)."""
    try:
        with logged_native_output():
            return LiteRtModel(path, options)
    except StartError:
        raise
    except Exception as error:  # ValueError and RuntimeError, both for every kind of fault
        raise StartError(Reason.LOAD_FAILED, f"{path} cannot be loaded: {error}") from error


def _name_tensors(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the details of the inputs and the outputs by name: by those of a signature where one fits."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        signed = runner.get_input_details(), runner.get_output_details()
        # A signature of another subgraph has other tensors: it is not what a plain computation runs.
        if _tensors(signed[0].values()) == _tensors(inputs) and _tensors(signed[1].values()) <= _tensors(
            outputs
        ):
            return signed
    return {one["name"]: one for one in inputs}, {one["name"]: one for one in outputs}


def _tensors(details: Iterable[Any]) -> set[tuple[int, str]]:
    return {(int(detail["index"]), str(detail["name"])) for detail in details}


def _tensor_spec(name: str, detail: Mapping[str, Any]) -> TensorSpec:
    datatype = _DATATYPES.get(detail["dtype"])
    if datatype is None:
        kind = getattr(detail["dtype"], "__name__", detail["dtype"])
        sentence = f'"{name}" is a {kind}, which the Open Inference Protocol has no tensor datatype for'
        raise StartError(Reason.LOAD_FAILED, sentence)
    declared = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    return TensorSpec(name, datatype, tuple(int(size) for size in declared), _read_quantization(detail))


def _read_quantization(detail: Mapping[str, Any]) -> tuple[float, int] | None:
    """Return scale and zero point where there is one of each; inputs and outputs have no more."""
    parameters = detail["quantization_parameters"]
    if len(parameters["scales"]) != 1 or len(parameters["zero_points"]) != 1:
        return None
    return float(parameters["scales"][0]), int(parameters["zero_points"][0])
