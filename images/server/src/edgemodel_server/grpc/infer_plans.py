"""Requests that were seen before, but for the bytes of their tensors.

A client that asks the same model again sends the same message with other tensors: everything up to the raw
bytes is equal, and so is its meaning. A plan keeps those bytes and what the strict path took them to mean. It
is made by the strict path alone, and used for messages that are equal to it in all bytes but the tensors'.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from edgemodel_server.datatypes import Tensor
from edgemodel_server.grpc.infer_answer import AnswerWriter, encode_varint
from edgemodel_server.grpc.protos.inference_pb2 import ModelInferRequest
from edgemodel_server.inference import InferRequest
from edgemodel_server.served import ServedModel
from edgemodel_server.startup import Prepared

_RAW_INPUT = bytes((ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2,))
_MAX_PLANS = 256
_MAX_ALIKE = 4  # plans for messages of one length
_MAX_HEAD_BYTES = 4096


class _Place(NamedTuple):
    """Where one tensor lies: the bytes before it and where they begin, its own begin, and what it is."""

    before: bytes
    begin: int
    start: int
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Plan(NamedTuple):
    """What a message means, for as long as its model is the one that was ``prepared`` at the time."""

    served: ServedModel
    prepared: Prepared | None
    places: tuple[_Place, ...]
    output_names: list[str]
    timeout: float | None
    request_id: str | None
    writer: AnswerWriter

    @property
    def holds(self) -> bool:
        """Whether the model is still the one that the message was checked against."""
        return self.served.prepared is self.prepared and self.served.failure is None

    def read(self, message: bytes) -> dict[str, Tensor] | None:
        """Return the tensors in a message of the right length; None if it is not the one that is known."""
        inputs: dict[str, Tensor] = {}
        for before, begin, start, name, dtype, shape in self.places:
            if not message.startswith(before, begin):
                return None
            inputs[name] = np.ndarray(shape, dtype, message, start)
        return inputs


class Plans:
    """The plans of a server, by the length of their messages."""

    def __init__(self) -> None:
        self._known: dict[int, list[Plan]] = {}
        self._count = 0

    def find(self, message: bytes) -> tuple[Plan, dict[str, Tensor]] | None:
        """Return the plan for a message, with the message's tensors."""
        for plan in self._known.get(len(message), ()):
            inputs = plan.read(message)
            if inputs is not None:
                return plan, inputs
        return None

    def forget(self, plan: Plan) -> None:
        """Drop a plan: its model is another one now."""
        for length, plans in self._known.items():
            kept = [known for known in plans if known is not plan]
            self._count -= len(plans) - len(kept)
            self._known[length] = kept

    def learn(self, message: bytes, parsed: ModelInferRequest, request: InferRequest, plan: Plan) -> bool:
        """Keep the plan that the strict path made of a message, if others like it show by their bytes."""
        arrays = [(entry.name, request.inputs[entry.name]) for entry in parsed.inputs]
        if request.id is not None or not all(array.size and array.dtype.kind in "fiu" for _, array in arrays):
            return False
        places = _locate(message, parsed.raw_input_contents, arrays)
        if places is None or not _is_whole(places[0].before, parsed):
            return False
        if self._count >= _MAX_PLANS:  # clients that never say the same twice
            self._known.clear()
            self._count = 0
        alike = self._known.setdefault(len(message), [])
        if len(alike) >= _MAX_ALIKE:
            return False
        alike.append(plan._replace(places=places))
        self._count += 1
        return True


def _locate(
    message: bytes, raws: Sequence[bytes], arrays: Sequence[tuple[str, Tensor]]
) -> tuple[_Place, ...] | None:
    """Return where the tensors lie, if the message ends with exactly its raw contents."""
    if len(raws) != len(arrays) or not raws:
        return None
    headers = [_RAW_INPUT + encode_varint(len(raw)) for raw in raws]
    start = len(message) - sum(len(header) + len(raw) for header, raw in zip(headers, raws, strict=True))
    if not 0 < start <= _MAX_HEAD_BYTES:
        return None
    places: list[_Place] = []
    before = message[:start]
    for header, raw, (name, array) in zip(headers, raws, arrays, strict=True):
        before += header
        start += len(header)
        if message[start - len(header) : start + len(raw)] != header + raw:
            return None
        places.append(_Place(before, start - len(before), start, name, array.dtype, array.shape))
        start += len(raw)
        before = b""
    return tuple(places)


def _is_whole(head: bytes, parsed: ModelInferRequest) -> bool:
    """Say whether a head is complete fields, and all of them but the raw contents.

    ``head`` ends with the tag and length of the first tensor, which are no part of it yet. By the rules of
    protobuf, what follows whole fields means the same whatever they are.
    """
    rest = ModelInferRequest()
    rest.CopyFrom(parsed)
    del rest.raw_input_contents[:]
    length = len(encode_varint(len(parsed.raw_input_contents[0]))) + 1
    try:
        return ModelInferRequest.FromString(head[:-length]) == rest
    except DecodeError:
        return False
