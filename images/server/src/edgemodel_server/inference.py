"""The inference request and answer of the Open Inference Protocol v2, JSON with optional binary tensors.

Source: Open Inference Protocol v2, "Inference Request JSON Object", and its binary tensor extension: the
header ``Inference-Header-Content-Length`` gives the length of the JSON part, and the binary tensors follow it
in the order of the inputs. Pure functions; every refusal is an ApiError with status 400.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson

from edgemodel_server.datatypes import NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.json_requests import decode_data, split_request
from edgemodel_server.tensors import decode_binary, decode_json, encode_binary, encode_json, parse_shape

_MAX_LAYOUTS = 256
_MAX_LAYOUT_BYTES = 4096

_UNSUPPORTED_PARAMETERS = ("classification", "shared_memory_region")
"""Parameters of other servers that change what the answer means: refused, not ignored."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives, by name and in the model's order."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


class InferRequest(NamedTuple):
    """A checked request: arrays that fit the model, and the wanted outputs as (name, binary?).

    ``timeout`` is how many seconds the client waits for the computation; None: as long as it takes.
    """

    id: str | None
    inputs: dict[str, Tensor]
    outputs: tuple[tuple[str, bool], ...]
    timeout: float | None = None

    @property
    def output_names(self) -> list[str]:
        """The names of the wanted outputs, in the order of the answer."""
        return [name for name, _ in self.outputs]


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """An encoded answer: the JSON part, and the binary tensors that follow it, if any."""

    document: bytes
    tensors: tuple[bytes, ...]


class _Layout(NamedTuple):
    """Where the tensors lie behind a JSON part that was read before: nothing of it needs to be read again."""

    tensors: tuple[tuple[str, np.dtype[Any], int, tuple[int, ...], int], ...]
    outputs: tuple[tuple[str, bool], ...]
    timeout: float | None
    size: int

    def read(self, body: bytes, start: int) -> InferRequest | None:
        """Return the request in ``body``, whose tensors begin at ``start``; None if they cannot be these."""
        if len(body) - start != self.size:
            return None
        inputs: dict[str, Tensor] = {}
        for name, dtype, count, shape, size in self.tensors:
            inputs[name] = np.frombuffer(body, dtype, count, start).reshape(shape)
            start += size
        return InferRequest(None, inputs, self.outputs, self.timeout)


class Layouts:
    """The JSON parts of binary requests that one signature was checked with; equal bytes mean the same."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Layout] = {}

    def get(self, text: bytes) -> _Layout | None:
        """Return what is known of a JSON part."""
        return self._known.get(text)

    def learn(self, text: bytes, request: InferRequest, size: int) -> None:
        """Remember a JSON part that was followed by ``size`` bytes, if the tensors are just those bytes."""
        tensors = [(name, array) for name, array in request.inputs.items()]
        plain = all(array.size and array.dtype.kind in "fiu" for _, array in tensors)
        if request.id is not None or not plain or size != sum(array.nbytes for _, array in tensors):
            return
        if len(text) > _MAX_LAYOUT_BYTES:
            return
        if len(self._known) >= _MAX_LAYOUTS:  # clients that never say the same twice
            self._known.clear()
        self._known[text] = _Layout(
            tuple((name, array.dtype, array.size, array.shape, array.nbytes) for name, array in tensors),
            request.outputs,
            request.timeout,
            size,
        )


def parse_infer_request(
    body: bytes, json_length: int | None, signature: Signature, layouts: Layouts | None = None
) -> InferRequest:
    """Return the checked request in ``body``.

    ``json_length`` is the value of ``Inference-Header-Content-Length``; None when the whole body is JSON.
    ``layouts`` are the ones seen before, for the same signature.
    """
    if json_length is None:
        return _read_json_request(body, signature) or _parse_document(body, memoryview(b""), signature)
    if json_length > len(body):
        raise ApiError(
            400, f"Inference-Header-Content-Length is {json_length}, but the body has {len(body)} bytes"
        )
    text = body[:json_length]
    if layouts is None:
        return _parse_document(text, memoryview(body)[json_length:], signature)
    layout = layouts.get(text)
    if layout is not None:
        request = layout.read(body, json_length)
        if request is not None:
            return request
    request = _parse_document(text, memoryview(body)[json_length:], signature)
    layouts.learn(text, request, len(body) - json_length)
    return request


def _read_json_request(body: bytes, signature: Signature) -> InferRequest | None:
    """Read a request whose tensors are all JSON the fast way; None where that is not possible."""
    parts = split_request(body)
    if parts is None or "inputs" not in parts[0]:
        return None
    document, arrays = parts
    entries = document.get("inputs")
    try:
        heads = [parse_input_head(entry, signature.inputs) for entry in entries or ()]
        request_id, outputs, timeout = parse_wishes(document, signature)
    except ApiError:
        return None
    names = {spec.name for spec, _, _ in heads}
    if not len(names) == len(heads) == len(arrays) == len(signature.inputs):
        return None
    if any(size is not None for _, _, size in heads):
        return None
    tensors = [(spec.datatype, shape, array) for (spec, shape, _), array in zip(heads, arrays, strict=True)]
    decoded = decode_data(body, document, tensors)
    if decoded is None:
        return None
    inputs = {head[0].name: tensor for head, tensor in zip(heads, decoded, strict=True)}
    return InferRequest(request_id, inputs, outputs, timeout)


def _parse_document(text: bytes, tail: memoryview, signature: Signature) -> InferRequest:
    document = _parse_object(text)
    inputs = _parse_inputs(document.get("inputs"), tail, signature.inputs)
    request_id, outputs, timeout = parse_wishes(document, signature)
    return InferRequest(request_id, inputs, outputs, timeout)


def parse_wishes(
    document: dict[str, Any], signature: Signature
) -> tuple[str | None, tuple[tuple[str, bool], ...], float | None]:
    """Return everything but the inputs: id, outputs and timeout in seconds."""
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise ApiError(400, "id must be a string")
    parameters = _parse_parameters(document, "request")
    timeout = parameters.get("timeout")
    if timeout is not None and (type(timeout) is not int or timeout < 0):
        raise ApiError(400, "the parameter timeout must be a number of microseconds")
    outputs = _parse_outputs(document, parameters, signature.outputs)
    return request_id, outputs, timeout / 1e6 if timeout else None


def parse_tensors(entries: object, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """Return the arrays of a list of JSON tensors that must be exactly the tensors in ``specs``."""
    return _parse_inputs(entries, memoryview(b""), specs)


def _parse_object(text: bytes | memoryview) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the request is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ApiError(400, "the request must be a JSON object")
    return document


def _parse_inputs(entries: object, tail: memoryview, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    if not isinstance(entries, list):
        raise ApiError(400, "inputs must be a list of tensors")
    arrays: dict[str, Tensor] = {}
    for entry in entries:
        spec, shape, size = parse_input_head(entry, specs)
        if spec.name in arrays:
            raise ApiError(400, f'input "{spec.name}" is given twice')
        arrays[spec.name] = _parse_elements(entry, spec, shape, size, tail)
        tail = tail[size or 0 :]
    if len(tail):
        raise ApiError(400, f"{len(tail)} bytes of binary data belong to no input")
    if len(arrays) != len(specs):
        raise ApiError(400, "missing input " + ", ".join(f'"{name}"' for name in specs if name not in arrays))
    return arrays


def _parse_elements(
    entry: dict[str, Any], spec: TensorSpec, shape: tuple[int, ...], size: int | None, tail: memoryview
) -> Tensor:
    """Return the array of one request tensor: its ``data``, or the first ``size`` bytes of ``tail``."""
    if ("data" in entry) == (size is not None):
        raise ApiError(400, f'input "{spec.name}" needs either data or the parameter binary_data_size')
    if size is None:
        return decode_json(spec.name, spec.datatype, shape, entry["data"])
    if size > len(tail):
        raise ApiError(
            400, f'input "{spec.name}": binary_data_size is {size}, but {len(tail)} bytes are left'
        )
    return decode_binary(spec.name, spec.datatype, shape, tail[:size])


def parse_input_head(
    entry: object, specs: Mapping[str, TensorSpec]
) -> tuple[TensorSpec, tuple[int, ...], int | None]:
    """Return the model's tensor, the shape and the binary size (None: JSON data) of one request tensor."""
    if not isinstance(entry, dict):
        raise ApiError(400, "each tensor must be a JSON object")
    name = entry.get("name")
    spec = specs.get(name) if isinstance(name, str) else None
    if spec is None:
        known = ", ".join(f'"{known}"' for known in specs)
        raise ApiError(400, f"the model has no tensor {orjson.dumps(name).decode()} here, only {known}")
    datatype = entry.get("datatype")
    if datatype != spec.datatype:
        known_type = isinstance(datatype, str) and datatype in NUMPY_DTYPE
        told = datatype if known_type else orjson.dumps(datatype).decode()
        raise ApiError(400, f'tensor "{spec.name}": datatype is {told}, the model takes {spec.datatype}')
    shape = parse_shape(spec.name, entry.get("shape"))
    if not spec.accepts(shape):
        raise ApiError(
            400, f'tensor "{spec.name}": shape is {list(shape)}, the model takes {list(spec.shape)}'
        )
    parameters = _parse_parameters(entry, f'tensor "{spec.name}"')
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise ApiError(400, f'tensor "{spec.name}": binary_data_size must be a non-negative integer')
    return spec, shape, size


def _parse_parameters(entry: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ApiError(400, f"{where}: parameters must be a JSON object")
    for unsupported in _UNSUPPORTED_PARAMETERS:
        if unsupported in parameters:
            raise ApiError(400, f"{where}: this server does not support the parameter {unsupported}")
    return parameters


def _parse_outputs(
    document: dict[str, Any], parameters: dict[str, Any], specs: Mapping[str, TensorSpec]
) -> tuple[tuple[str, bool], ...]:
    binary_default = _parse_flag(parameters, "binary_data_output", default=False)
    entries = document.get("outputs")
    if entries is None or entries == []:
        return tuple((name, binary_default) for name in specs)
    if not isinstance(entries, list):
        raise ApiError(400, "outputs must be a list")
    wanted: dict[str, bool] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in specs:
            known = ", ".join(f'"{known}"' for known in specs)
            raise ApiError(400, f"the model has no output {orjson.dumps(name).decode()}, only {known}")
        if name in wanted:
            raise ApiError(400, f'output "{name}" is requested twice')
        wanted[name] = _parse_flag(
            _parse_parameters(entry, f'output "{name}"'), "binary_data", default=binary_default
        )
    return tuple(wanted.items())


def _parse_flag(parameters: dict[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise ApiError(400, f"the parameter {key} must be true or false")
    return value


def make_infer_answer(
    model: str,
    version: str,
    request: InferRequest,
    arrays: Sequence[Tensor],
    signature: Signature,
    parameters: Mapping[str, int | float] | None = None,
) -> InferAnswer:
    """Return the encoded answer; ``arrays`` are the outputs in the order of ``request.outputs``."""
    outputs: list[dict[str, Any]] = []
    buffers: list[bytes] = []
    for (name, binary), array in zip(request.outputs, arrays, strict=True):
        datatype = signature.outputs[name].datatype
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": array.shape}
        if binary:
            buffer = encode_binary(datatype, array)
            entry["parameters"] = {"binary_data_size": len(buffer)}
            buffers.append(buffer)
        else:
            entry["data"] = encode_json(name, datatype, array)
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    if parameters is not None:
        document["parameters"] = parameters
    document["outputs"] = outputs
    return InferAnswer(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), tuple(buffers))
