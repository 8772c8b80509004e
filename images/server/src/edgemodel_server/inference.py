"""The inference request and answer of the Open Inference Protocol v2, JSON with optional binary tensors.

Source: Open Inference Protocol v2, "Inference Request JSON Object", and its binary tensor extension: the
header ``Inference-Header-Content-Length`` gives the length of the JSON part, and the binary tensors follow it
in the order of the inputs. Pure functions; every refusal is an ApiError with status 400.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from edgemodel_server.datatypes import NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.json_requests import decode_data, split_request
from edgemodel_server.media import recognize
from edgemodel_server.raw_body import decode_raw_body
from edgemodel_server.tensors import decode_binary, decode_json, parse_shape

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


def parse_infer_request(body: bytes, json_length: int | None, signature: Signature) -> InferRequest:
    """Return the checked request in ``body``.

    ``json_length`` is the value of ``Inference-Header-Content-Length``; None when the whole body is JSON, 0
    when it is the only input's bytes: then all outputs are binary.
    """
    if json_length is None:
        return _read_json_request(body, signature) or _parse_document(body, memoryview(b""), signature)
    if json_length > len(body):
        raise ApiError(
            400, f"Inference-Header-Content-Length is {json_length}, but the body has {len(body)} bytes"
        )
    if json_length == 0:
        wanted = tuple((name, True) for name in signature.outputs)
        return InferRequest(None, decode_raw_body(body, signature.inputs), wanted)
    return _parse_document(body[:json_length], memoryview(body)[json_length:], signature)


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
        picture = recognize(text)
        told = f": {error}" if picture is None else f", but a {picture}: send it as image/{picture.lower()}"
        raise ApiError(400, "the request is not valid JSON" + told) from None
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
