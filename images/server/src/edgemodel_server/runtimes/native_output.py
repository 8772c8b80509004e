"""What native libraries write to standard error, where every line of ours is JSON: caught, and logged."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from edgemodel_server.log import log_warning

_turn = Lock()
_STDERR = 2
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOISE = b"INFO:"
_OWN = b'{"time"'


@contextmanager
def logged_native_output() -> Iterator[None]:
    """Within the block, keep what arrives at standard error; after it, log each line as one event.

    Lines that begin with ``INFO:`` tell a user nothing and are dropped. Lines of our own log that other
    threads write meanwhile are passed on as they are, late but whole. One block runs at a time: there is one
    standard error.
    """
    with _turn, os.fdopen(os.memfd_create("native-output"), "w+b") as caught:
        saved = os.dup(_STDERR)
        os.dup2(caught.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
            caught.seek(0)
            _log_lines(caught.read().splitlines())


def _log_lines(lines: Iterable[bytes]) -> None:
    for line in lines:
        if line.startswith(_OWN):
            os.write(_STDERR, line + b"\n")
        elif line.strip() and not line.startswith(_NOISE):
            log_warning("runtime output", text=_COLOUR.sub("", line.decode(errors="replace")))
