"""What was checked before need not be checked again: the parts of requests that repeat, byte for byte.

A request is some JSON that describes the tensors, and their data. Clients that ask again and again change the
data only. So equal descriptions mean the same, and what is left to do is to read the data.
"""

import re
from typing import Any, NamedTuple

import numpy as np

from edgemodel_server.datatypes import Tensor
from edgemodel_server.inference import InferRequest, Signature, parse_infer_request
from edgemodel_server.json_requests import decode_flat, has_empty_data

_MAX_KNOWN = 256
_MAX_TEXT_BYTES = 4096
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*')


class _BinaryLayout(NamedTuple):
    """The tensors behind a JSON part."""

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


class _JsonFrame(NamedTuple):
    """The text around the data of a request's only tensor, with what it says; ``rest`` follows the data."""

    rest: bytes
    name: str
    datatype: str
    shape: tuple[int, ...]
    outputs: tuple[tuple[str, bool], ...]
    timeout: float | None

    def read(self, body: bytes, start: int) -> InferRequest | None:
        """Return the request in ``body``, whose data begins at ``start``; None if it is no such list."""
        if not body.endswith(self.rest):
            return None
        # An array for an array: whatever it holds, the text around it keeps its meaning.
        tensor = decode_flat(body[start : len(body) - len(self.rest)], self.datatype, self.shape)
        if tensor is None:
            return None
        return InferRequest(None, {self.name: tensor}, self.outputs, self.timeout)


class Layouts:
    """Reads requests for one signature, and remembers what may come again."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._layouts: dict[bytes, _BinaryLayout] = {}
        self._frames: dict[bytes, _JsonFrame] = {}

    def parse(self, body: bytes, json_length: int | None) -> InferRequest:
        """Return the checked request in ``body``; see ``inference.parse_infer_request``."""
        if json_length is None:
            return self._parse_json(body)
        text = body[:json_length]
        layout = self._layouts.get(text)
        known = None if layout is None else layout.read(body, json_length)
        if known is not None:
            return known
        request = parse_infer_request(body, json_length, self.signature)
        self._learn_layout(text, request, len(body) - json_length)
        return request

    def _parse_json(self, body: bytes) -> InferRequest:
        data = _DATA.search(body, 0, _MAX_TEXT_BYTES)
        frame = None if data is None else self._frames.get(body[: data.end()])
        known = None if data is None or frame is None else frame.read(body, data.end())
        if known is not None:
            return known
        request = parse_infer_request(body, None, self.signature)
        if data is not None:
            self._learn_frame(body, data.end(), request)
        return request

    def _learn_layout(self, text: bytes, request: InferRequest, size: int) -> None:
        """Remember a JSON part that was followed by ``size`` bytes, if the tensors are just those bytes."""
        arrays = request.inputs.values()
        plain = all(array.size and array.dtype.kind in "fiu" for array in arrays)
        whole = size == sum(array.nbytes for array in arrays)
        if request.id is not None or not plain or not whole or len(text) > _MAX_TEXT_BYTES:
            return
        if len(self._layouts) >= _MAX_KNOWN:  # clients that never say the same twice
            self._layouts.clear()
        self._layouts[text] = _BinaryLayout(
            tuple((name, array.dtype, array.size, array.shape, array.nbytes)
                  for name, array in request.inputs.items()),
            request.outputs, request.timeout, size,
        )  # fmt: skip

    def _learn_frame(self, body: bytes, start: int, request: InferRequest) -> None:
        """Remember the text around flat data.

        Whether this is the tensor's data, and no other array, shows when it is taken out.
        """
        end = body.find(b"]", start) + 1
        rest = body[end:]
        if request.id is not None or len(request.inputs) != 1 or len(rest) > _MAX_TEXT_BYTES:
            return
        ((name, array),) = request.inputs.items()
        datatype = self.signature.inputs[name].datatype
        known = decode_flat(body[start:end], datatype, array.shape)
        if known is None or not array.size or not has_empty_data(body[:start] + b"[]" + rest):
            return
        if len(self._frames) >= _MAX_KNOWN:
            self._frames.clear()
        self._frames[body[:start]] = _JsonFrame(
            rest, name, datatype, array.shape, request.outputs, request.timeout
        )
