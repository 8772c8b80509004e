"""Pulls as `crictl pull` does: one call of the CRI (k8s.io/cri-api, runtime/v1/api.proto)."""

from __future__ import annotations

from pathlib import Path

import grpc

PULL = "/runtime.v1.ImageService/PullImage"
REMOVE = "/runtime.v1.ImageService/RemoveImage"


class PullFailed(Exception):  # noqa: N818 - reads as the fact it states
    """containerd did not pull the image; the message is its sentence."""


def pull(socket: Path, image: str, *, timeout_s: float = 60) -> None:
    """Pull an image. Raises PullFailed."""
    try:
        _call(socket, PULL, image, timeout_s)
    except grpc.RpcError as error:
        raise PullFailed(error.details()) from error


def remove(socket: Path, image: str, *, timeout_s: float = 60) -> None:
    """Remove an image from the node; one that is not there is no error."""
    _call(socket, REMOVE, image, timeout_s)


def _call(socket: Path, method: str, image: str, timeout_s: float) -> None:
    # Both requests begin with `ImageSpec image = 1`, and that with `string image = 1`.
    request = _field(_field(image.encode()))
    with grpc.insecure_channel(
        f"unix:{socket}", options=[("grpc.default_authority", "localhost")]
    ) as channel:
        channel.unary_unary(method)(request, timeout=timeout_s)


def _field(content: bytes) -> bytes:
    """Encode a length-delimited field number 1 of a protocol buffer."""
    length, encoded = len(content), bytearray()
    while length > 127:
        encoded.append(length & 127 | 128)
        length >>= 7
    return b"\x0a" + bytes([*encoded, length]) + content
