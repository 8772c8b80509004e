"""The inference answer in its gRPC form: outputs are always raw, whatever form the inputs had.

Source: Open Inference Protocol v2, ``ModelInferResponse``; protobuf encoding, "length-delimited records".
"""

from collections.abc import Sequence
from functools import lru_cache

from edgemodel_server.datatypes import BYTES, Tensor
from edgemodel_server.grpc.protos.inference_pb2 import ModelInferResponse
from edgemodel_server.inference import InferRequest, Signature
from edgemodel_server.tensors import encode_binary

_RAW_OUTPUT = bytes((ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2,))
_MAX_KEPT = 64


@lru_cache(maxsize=1024)
def encode_varint(number: int) -> bytes:
    """Return a non-negative number in protobuf's variable-length form."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class AnswerWriter:
    """Encodes the answers to requests of one kind, which differ in the shapes and bytes of the outputs alone.

    The raw outputs are the last field of the message, so what is before each of them follows from the shapes
    (but for BYTES) and is kept.
    """

    def __init__(self, model: str, version: str, request: InferRequest, signature: Signature) -> None:
        self._model = model
        self._version = version
        self._id = request.id or ""
        self._outputs = [(name, signature.outputs[name].datatype) for name, _ in request.outputs]
        self._datatypes = [datatype for _, datatype in self._outputs]
        self._kept: dict[tuple[tuple[int, ...], ...], list[bytes]] = {}

    def write(self, arrays: Sequence[Tensor]) -> bytes:
        """Return the message that answers with ``arrays``."""
        shapes = tuple([array.shape for array in arrays])
        befores = self._kept.get(shapes)
        if befores is None:
            befores = self._make_befores(shapes, arrays)
            if BYTES not in self._datatypes and len(self._kept) < _MAX_KEPT:
                self._kept[shapes] = befores
        if len(befores) == 1:
            return befores[0] + encode_binary(self._datatypes[0], arrays[0])
        parts: list[bytes] = []
        for before, datatype, array in zip(befores, self._datatypes, arrays, strict=True):
            parts.append(before)
            parts.append(encode_binary(datatype, array))
        return b"".join(parts)

    def _make_befores(self, shapes: Sequence[tuple[int, ...]], arrays: Sequence[Tensor]) -> list[bytes]:
        """Return what stands before each raw output; for the first one, all the rest of the message."""
        answer = ModelInferResponse(model_name=self._model, model_version=self._version, id=self._id)
        befores: list[bytes] = []
        for (name, datatype), shape, array in zip(self._outputs, shapes, arrays, strict=True):
            answer.outputs.add(name=name, datatype=datatype, shape=shape)
            befores.append(_RAW_OUTPUT + encode_varint(len(encode_binary(datatype, array))))
        befores[0] = answer.SerializeToString() + befores[0]
        return befores
