"""The inference answer in its gRPC form: outputs are always raw, whatever form the inputs had.

Source: Open Inference Protocol v2, ``ModelInferResponse``; protobuf encoding, "length-delimited records".
"""

from collections.abc import Sequence

from edgemodel_server.datatypes import Tensor
from edgemodel_server.grpc.protos.inference_pb2 import ModelInferResponse
from edgemodel_server.inference import InferRequest, Signature
from edgemodel_server.tensors import encode_binary

_RAW_OUTPUT = bytes((ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2,))


def encode_varint(number: int) -> bytes:
    """Return a non-negative number in protobuf's variable-length form."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_head(
    model: str, version: str, request: InferRequest, arrays: Sequence[Tensor], signature: Signature
) -> bytes:
    """Return the answer up to its raw outputs, which are the last field of the message."""
    answer = ModelInferResponse(model_name=model, model_version=version, id=request.id or "")
    for (name, _), array in zip(request.outputs, arrays, strict=True):
        answer.outputs.add(name=name, datatype=signature.outputs[name].datatype, shape=array.shape)
    return answer.SerializeToString()


def encode_outputs(request: InferRequest, arrays: Sequence[Tensor], signature: Signature) -> list[bytes]:
    """Return the raw outputs as they follow the head."""
    parts: list[bytes] = []
    for (name, _), array in zip(request.outputs, arrays, strict=True):
        raw = encode_binary(signature.outputs[name].datatype, array)
        parts += (_RAW_OUTPUT, encode_varint(len(raw)), raw)
    return parts
