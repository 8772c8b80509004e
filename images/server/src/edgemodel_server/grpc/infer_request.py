"""The inference request in its gRPC form, checked as over REST and with the same words.

Source: Open Inference Protocol v2, ``ModelInferRequest``: each tensor has its elements either in ``contents``
or, for all of them together, as raw little-endian bytes in ``raw_input_contents``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.grpc.protos.inference_pb2 import InferParameter, InferTensorContents, ModelInferRequest
from edgemodel_server.inference import InferRequest, Signature, parse_input_head, parse_wishes
from edgemodel_server.tensors import decode_binary, make_bytes_array

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Which list holds the elements of a datatype; there is none for FP16."""

_ELEMENTS = {"int_contents": np.dtype("<i4"), "uint_contents": np.dtype("<u4")}
"""What a list holds that serves several datatypes. To these, numpy would cut its elements down in silence."""


def parse_message(message: bytes) -> ModelInferRequest:
    """Return the protobuf message; raises ApiError(400)."""
    try:
        return ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise ApiError(400, f"the message is no ModelInferRequest: {error}") from None


def parse_request(message: ModelInferRequest, signature: Signature) -> InferRequest:
    """Return the checked request in a message; raises ApiError(400)."""
    inputs = _parse_inputs(message, signature.inputs)
    wishes: dict[str, Any] = {
        "id": message.id or None,
        "parameters": _parse_parameters(message.parameters),
        "outputs": [
            {"name": output.name, "parameters": _parse_parameters(output.parameters)}
            for output in message.outputs
        ],
    }
    request_id, outputs, timeout = parse_wishes(wishes, signature)
    return InferRequest(request_id, inputs, outputs, timeout)


def _parse_parameters(parameters: Mapping[str, InferParameter]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        values[name] = None if choice is None else getattr(parameter, choice)
    return values


def _parse_inputs(message: ModelInferRequest, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    raws: Sequence[bytes] = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise ApiError(
            400, f"raw_input_contents has {len(raws)} elements, it must have one for each of the inputs"
        )
    arrays: dict[str, Tensor] = {}
    for place, entry in enumerate(message.inputs):
        head = {
            "name": entry.name,
            "datatype": entry.datatype,
            "shape": list(entry.shape),
            "parameters": _parse_parameters(entry.parameters),
        }
        spec, shape, _ = parse_input_head(head, specs)
        if spec.name in arrays:
            raise ApiError(400, f'input "{spec.name}" is given twice')
        if not raws:
            arrays[spec.name] = decode_contents(spec.name, spec.datatype, shape, entry.contents)
        elif entry.HasField("contents"):
            raise ApiError(400, f'input "{spec.name}" needs either contents or raw_input_contents, not both')
        else:
            arrays[spec.name] = decode_binary(spec.name, spec.datatype, shape, memoryview(raws[place]))
    if len(arrays) != len(specs):
        raise ApiError(400, "missing input " + ", ".join(f'"{name}"' for name in specs if name not in arrays))
    return arrays


def decode_contents(
    name: str, datatype: str, shape: tuple[int, ...], contents: InferTensorContents
) -> Tensor:
    """Return the array of a tensor with typed contents; raises ApiError(400)."""
    field = _CONTENTS.get(datatype)
    if field is None:
        raise ApiError(400, f'tensor "{name}": {datatype} has no typed contents: use raw_input_contents')
    strangers = [filled.name for filled, _ in contents.ListFields() if filled.name != field]
    if strangers:
        raise ApiError(400, f'tensor "{name}": {datatype} belongs into {field}, not {", ".join(strangers)}')
    values = getattr(contents, field)
    count = int(np.prod(shape, dtype=object))
    if len(values) != count:
        raise ApiError(
            400, f'tensor "{name}": shape {list(shape)} holds {count} elements, {field} has {len(values)}'
        )
    if datatype == BYTES:
        return make_bytes_array(list(values)).reshape(shape)
    wide: Tensor = np.array(values, dtype=_ELEMENTS.get(field, NUMPY_DTYPE[datatype]))
    array: Tensor = wide.astype(NUMPY_DTYPE[datatype], copy=False)
    if array is not wide and (array != wide).any():
        raise ApiError(400, f'tensor "{name}": a value is outside the range of {datatype}')
    return array.reshape(shape)
