"""Asking a server once: until it answers, and whether what it answers is what the runtime answers."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.machine import BenchError
from bench.models import INPUT, OUTPUT, Floats
from bench.payloads import Codec, Payload
from bench.session import open_session

_START_SECONDS = 90.0
_NOT_YET = frozenset({404, 503})
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
"""How far an answer may be off: JSON digits and another order of additions, not another model."""

Ask = Callable[[Floats], Floats]
"""One inference; raises OSError or NotReady while the server is not there yet."""


class NotReady(Exception):  # noqa: N818 - reads as the fact it states
    """The server answers, but does not serve the model yet."""


@dataclass(frozen=True)
class Reference:
    """Inputs of a model, and the outputs that the bare runtime gives for them."""

    inputs: Sequence[Floats]
    outputs: Sequence[Floats]


def make_reference(model: Path, inputs: Sequence[Floats]) -> Reference:
    """Ask the bare runtime."""
    session = open_session(str(model))
    outputs = [session.run([OUTPUT], {INPUT: tensor})[0] for tensor in inputs]
    if not all(np.isfinite(output).all() for output in outputs):
        raise BenchError(f"{model.name} computes numbers that are not finite")
    return Reference(inputs, outputs)


def over_http(port: int, path: str, codec: Codec) -> Ask:
    """Return how to ask over HTTP."""

    def ask(tensor: Floats) -> Floats:
        body, headers = post(port, path, codec.encode(tensor))
        return codec.decode(body, headers)

    return ask


def post(port: int, path: str, payload: Payload) -> tuple[bytes, dict[str, str]]:
    """Post once, on a connection of its own; returns the body and the headers, their names in lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, payload.body, dict(payload.headers))
        reply = connection.getresponse()
        body = reply.read()
    except http.client.HTTPException as error:
        raise BenchError(f"no HTTP: {error!r}") from None
    finally:
        connection.close()
    if reply.status in _NOT_YET:
        raise NotReady(f"status {reply.status}: {body[:200]!r}")
    if reply.status != 200:
        raise BenchError(f"status {reply.status}: {body[:500]!r}")
    return body, {name.lower(): value for name, value in reply.getheaders()}


def wait_for_answers(ask: Ask, reference: Reference, alive: Callable[[], bool]) -> None:
    """Wait for the first answer, then compare an answer to every input with the reference.

    Raises BenchError when the server ends, does not answer in time, or answers wrong.
    """
    _retry(lambda: ask(reference.inputs[0]), alive)
    for tensor, expected in zip(reference.inputs, reference.outputs, strict=True):
        check_answer(ask(tensor), expected)


def wait_for_port(port: int, alive: Callable[[], bool]) -> None:
    """Wait until connections are accepted."""
    _retry(lambda: socket.create_connection(("127.0.0.1", port)).close(), alive)


def _retry(attempt: Callable[[], object], alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            attempt()
        except (OSError, NotReady) as error:
            if not alive():
                raise BenchError("the server ended before it answered") from None
            if time.monotonic() > deadline:
                raise BenchError(f"no answer in {_START_SECONDS:.0f} s, last: {error}") from None
            time.sleep(0.02)
        else:
            return


def check_answer(answer: Floats, expected: Floats) -> None:
    """Raise BenchError unless the answer is the expected tensor, whatever its shape."""
    if answer.size != expected.size:
        raise BenchError(f"wrong answer: {answer.size} numbers instead of {expected.size}")
    if not np.allclose(answer.ravel(), expected.ravel(), _RELATIVE, _ABSOLUTE):
        worst = float(np.max(np.abs(answer.ravel() - expected.ravel())))
        raise BenchError(f"wrong answer: off by up to {worst:g}")


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
