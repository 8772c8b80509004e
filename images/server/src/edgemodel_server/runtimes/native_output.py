"""What native libraries write to standard error, where every line of ours is JSON: caught, and logged."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgemodel_server.log import log_warning

_STDERR = 2
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOISE = b"INFO:"


@contextmanager
def logged_native_output() -> Iterator[None]:
    """Within the block, keep what arrives at standard error; after it, log each line as one event.

    Lines that begin with ``INFO:`` tell a user nothing and are dropped.
    Lines of our own log that other threads write meanwhile are passed on as they are, late but whole.
    """
    with os.fdopen(os.memfd_create("native-output"), "w+b") as caught:
        saved = os.dup(_STDERR)
        try:
            os.dup2(caught.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(saved, _STDERR)
        finally:
            os.close(saved)
        caught.seek(0)
        for line in caught.read().splitlines():
            if line.startswith(b'{"time"'):
                os.write(_STDERR, line + b"\n")
            elif line.strip() and not line.startswith(_NOISE):
                log_warning("runtime output", text=_COLOUR.sub("", line.decode(errors="replace")))
