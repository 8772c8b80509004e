"""Messages of gRPC's ``ModelInfer``: a shortcut that earlier messages left must not show.

The oracle is the strict reader, and what the runtime is asked in the end.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from random import Random
from typing import Any, cast

import numpy as np

from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.grpc.infer_request import parse_message, parse_request
from edgemodel_server.grpc.inference_service import InferenceService
from edgemodel_server.grpc.protos.inference_pb2 import ModelInferRequest
from edgemodel_server.grpc.rpc import Rpc
from edgemodel_server.grpc.status import RpcError, from_api_error
from fuzz.stand_ins import VERSION, Loop, Runtime, make_app
from fuzz.tensors import SIGNATURES, freeze

_FORGET_EVERY = 5000
_VARYING = re.compile(r"[0-9]+|\".*?\"", re.DOTALL)


class _Rpc:
    """A call that keeps how it ended."""

    deadline = float("inf")
    received = 0.0
    logged = False
    on_abandon: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.error: RpcError | None = None

    def hand_over_deadline(self) -> None:
        """Leave the deadline to the handler: there is none."""

    def answer(self, message: object) -> None:
        """Take an answer."""

    def fail(self, error: RpcError) -> None:
        """Take a refusal."""
        self.error = error


def make_runtimes() -> dict[str, Runtime]:
    """Return a model for each signature, by name."""
    return {f"m{place}": Runtime(signature) for place, signature in enumerate(SIGNATURES)}


def _read_strictly(runtimes: dict[str, Runtime], message: bytes) -> Hashable:
    """Return the outcome of a message, with nothing remembered."""
    try:
        parsed = parse_message(message)
        runtime = runtimes.get(parsed.model_name)
        if runtime is None or parsed.model_version not in ("", VERSION):
            return "no such model"
        request = parse_request(parsed, runtime.signature)
    except ApiError as error:
        told = from_api_error(error)
        return told.code, told.message
    names = tuple(request.output_names)
    return parsed.model_name, names, request.timeout is not None, freeze(request.inputs)


class MessageTarget:
    """Messages of ``ModelInfer``: what is remembered of earlier ones must not show."""

    name = "grpc-message"
    words: Sequence[bytes] = (
        b"\x0a\x02m0", b"\x12\x011", b"\x1a\x017", b"\x2a\x00", b"\x32\x03\x0a\x01y", b"\x3a\x04abcd",
        b"\x3a\x00",
        b"\x0a\x01x", b"\x12\x04FP32", b"\x1a\x02\x01\x04", b"\x18\x01",
        b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x2a\x06\x32\x04\0\0\0\0", b"\x3a\x10" + bytes(16),
        b"\x22\x0f\x0a\x07timeout\x12\x04\x10\xc0\x84\x3d",
        b"\xff\xff\xff\xff\x0f", b"\x80\x80\0", b"\0", b"\x7a\x01a", b"\xfa\x01\x01a",
    )  # fmt: skip

    def __init__(self) -> None:
        self.seeds: Sequence[bytes] = tuple(make_messages())
        self._inputs = 0
        self._begin()

    def _begin(self) -> None:
        self._loop = Loop()
        self._runtimes = make_runtimes()
        service = InferenceService(make_app(self._loop, self._runtimes))
        self._infer = next(method for method in service.methods() if method.path.endswith("/ModelInfer"))

    def make(self, random: Random) -> bytes:
        """Return a message; see ``engine.Target``."""
        place = random.randrange(len(SIGNATURES))
        request = ModelInferRequest(model_name=f"m{place}", model_version=random.choice(("", "", "1", "2")))
        raw = random.random() < 0.7
        for spec in SIGNATURES[place].inputs.values():
            _add_input(request, spec, raw=raw, random=random)
        if random.random() < 0.3:
            request.outputs.add(name=random.choice("yyzx"))
        if random.random() < 0.2:
            request.parameters["timeout"].int64_param = random.choice((0, 5, -1))
        return request.SerializeToString()

    def check(self, data: bytes) -> Hashable:
        """Compare; see ``engine.Target``."""
        self._inputs += 1
        if self._inputs % _FORGET_EVERY == 0:
            self._begin()
        strict = _read_strictly(self._runtimes, data)
        for _ in range(2):
            fast = self._read(data)
            assert fast == strict, f"{fast} is not {strict}"
        if isinstance(strict, tuple) and len(strict) == 2:
            return _VARYING.sub("#", strict[1])[:80]
        return strict[:2] if isinstance(strict, tuple) else strict

    def _read(self, message: bytes) -> Hashable:
        rpc, timers = _Rpc(), self._loop.timers
        try:
            self._infer.handle(cast("Rpc", rpc), message)
        except (ApiError, RpcError) as error:
            rpc.error = error if isinstance(error, RpcError) else from_api_error(error)
        if rpc.error is not None:
            if "there is no model" in rpc.error.message or "has no version" in rpc.error.message:
                return "no such model"
            return rpc.error.code, rpc.error.message
        ((name, runtime),) = ((name, one) for name, one in self._runtimes.items() if one.asked is not None)
        inputs, outputs = cast("Any", runtime.asked)
        runtime.asked = None
        return name, outputs, self._loop.timers > timers, freeze(inputs)


def make_messages() -> list[bytes]:
    """Return well-formed messages for all models, raw and typed."""
    seeds = []
    for place, signature in enumerate(SIGNATURES):
        for raw in (True, False):
            request = ModelInferRequest(model_name=f"m{place}")
            for spec in signature.inputs.values():
                _add_input(request, spec, raw=raw, random=Random(1))
            seeds.append(request.SerializeToString())
            request.outputs.add(name="y")
            request.parameters["timeout"].int64_param = 1000000
            seeds.append(request.SerializeToString())
            request.id = "7"
            seeds.append(request.SerializeToString())
    return seeds


def _add_input(request: ModelInferRequest, spec: TensorSpec, *, raw: bool, random: Random) -> None:
    shape = [random.choice((0, 1, 1, 2)) if size == -1 else size for size in spec.shape]
    count = int(np.prod(shape))
    entry = request.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    if raw:
        size = 4 if spec.datatype == BYTES else NUMPY_DTYPE[spec.datatype].itemsize
        data = bytes(size * count) if spec.datatype == BYTES else random.randbytes(size * count)
        request.raw_input_contents.append(data)
    elif spec.datatype == BYTES:
        entry.contents.bytes_contents.extend([b"a"] * count)
    elif spec.datatype == "FP32":
        entry.contents.fp32_contents.extend([1.5] * count)
    elif spec.datatype == "BOOL":
        entry.contents.bool_contents.extend([True] * count)
    elif spec.datatype in ("INT32", "INT8"):
        entry.contents.int_contents.extend([-1] * count)
