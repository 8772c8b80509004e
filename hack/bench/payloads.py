"""What is sent over each wire, and how an answer becomes a tensor again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.models import INPUT, OUTPUT, Floats

Decode = Callable[[bytes, Mapping[str, str]], Floats]
"""Reads the output tensor, flat, from an answer's body and its headers (lower-case names)."""

_JSON_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Payload:
    """The body and the headers of one request."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Codec:
    """One way to carry a tensor over HTTP."""

    encode: Callable[[Floats], Payload]
    decode: Decode


def _encode_v2_json(tensor: Floats) -> Payload:
    described = {"name": INPUT, "datatype": "FP32", "shape": list(tensor.shape), "data": "@"}
    document = json.dumps({"inputs": [described]}, separators=(",", ":"))
    return Payload(document.replace('"@"', _numbers(tensor)).encode(), {"Content-Type": "application/json"})


def _decode_v2_json(body: bytes, headers: Mapping[str, str]) -> Floats:
    return np.array(json.loads(body)["outputs"][0]["data"], np.float32).ravel()


def _encode_v2_binary(tensor: Floats) -> Payload:
    described = {
        "name": INPUT,
        "datatype": "FP32",
        "shape": list(tensor.shape),
        "parameters": {"binary_data_size": tensor.nbytes},
    }
    wanted = {"name": OUTPUT, "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [described], "outputs": [wanted]}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", _JSON_LENGTH: str(len(head))}
    return Payload(head + tensor.tobytes(), headers)


def _decode_v2_binary(body: bytes, headers: Mapping[str, str]) -> Floats:
    return np.frombuffer(body[int(headers[_JSON_LENGTH.lower()]) :], np.float32)


def _encode_raw(tensor: Floats) -> Payload:
    return Payload(tensor.tobytes(), {"Content-Type": "application/octet-stream"})


def _decode_raw(body: bytes, headers: Mapping[str, str]) -> Floats:
    return np.frombuffer(body, np.float32)


def _encode_json_data(tensor: Floats) -> Payload:
    document = json.dumps({"shape": list(tensor.shape), "data": "@"}, separators=(",", ":"))
    return Payload(document.replace('"@"', _numbers(tensor)).encode(), {"Content-Type": "application/json"})


def _decode_json_data(body: bytes, headers: Mapping[str, str]) -> Floats:
    return np.array(json.loads(body)["data"], np.float32).ravel()


def _numbers(tensor: Floats) -> str:
    return "[" + ",".join(str(number) for number in tensor.ravel()) + "]"


V2_JSON = Codec(_encode_v2_json, _decode_v2_json)
V2_BINARY = Codec(_encode_v2_binary, _decode_v2_binary)
RAW_BYTES = Codec(_encode_raw, _decode_raw)
JSON_DATA = Codec(_encode_json_data, _decode_json_data)
"""For servers without a protocol of their own: `{"shape": [1, 640], "data": [0.5, …]}`, answered alike."""
