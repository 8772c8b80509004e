"""The inference answer of the Open Inference Protocol v2: JSON, and the binary tensors behind it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson

from edgemodel_server.datatypes import BYTES, Tensor
from edgemodel_server.inference import InferRequest, Signature
from edgemodel_server.tensors import encode_binary, encode_json

_MAX_KNOWN = 256


class InferAnswer(NamedTuple):
    """An encoded answer: the JSON part, and the binary tensors that follow it, if any."""

    document: bytes
    tensors: tuple[bytes, ...] = ()


class Answers:
    """Writes the answers of one model. The JSON of answers that are all binary is written once per shape."""

    def __init__(self, model: str, version: str, signature: Signature) -> None:
        self._head = orjson.dumps({"model_name": model, "model_version": version})[:-1]
        self._signature = signature
        self._documents: dict[object, bytes] = {}

    def make(
        self,
        request: InferRequest,
        arrays: Sequence[Tensor],
        parameters: Mapping[str, int | float] | None = None,
    ) -> InferAnswer:
        """Return the encoded answer; ``arrays`` are the outputs in the order of ``request.outputs``.

        Raises ApiError where JSON cannot carry an output.
        """
        if parameters is not None:
            return self._write(request, arrays, parameters)[0]
        key = (request.outputs, *[array.shape for array in arrays])
        document = self._documents.get(key) if request.id is None else None
        if document is not None:
            return InferAnswer(document, tuple([array.tobytes() for array in arrays]))
        answer, repeats = self._write(request, arrays, None)
        if repeats:
            if len(self._documents) >= _MAX_KNOWN:
                self._documents.clear()
            self._documents[key] = answer.document
        return answer

    def _write(
        self, request: InferRequest, arrays: Sequence[Tensor], parameters: Mapping[str, int | float] | None
    ) -> tuple[InferAnswer, bool]:
        """Return the answer, and whether its JSON is the same for every answer with these shapes."""
        repeats = request.id is None
        outputs: list[bytes] = []
        tensors: list[bytes] = []
        for (name, binary), array in zip(request.outputs, arrays, strict=True):
            datatype = self._signature.outputs[name].datatype
            entry: dict[str, object] = {"name": name, "datatype": datatype, "shape": array.shape}
            if binary:
                tensors.append(encode_binary(datatype, array))
                entry["parameters"] = {"binary_data_size": len(tensors[-1])}
            else:
                entry["data"] = encode_json(name, datatype, array)
            repeats = repeats and binary and datatype != BYTES
            outputs.append(orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY))
        request_id = b"" if request.id is None else b',"id":' + orjson.dumps(request.id)
        extra = b"" if parameters is None else b',"parameters":' + orjson.dumps(parameters)
        document = b"".join((self._head, request_id, extra, b',"outputs":[', b",".join(outputs), b"]}"))
        return InferAnswer(document, tuple(tensors)), repeats
