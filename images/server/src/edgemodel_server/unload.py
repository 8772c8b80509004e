"""Giving a model's memory back while nobody asks for it."""

import ctypes
import gc
from collections.abc import Mapping, Sequence
from contextlib import suppress

from edgemodel_server.datatypes import Tensor
from edgemodel_server.inference import Signature
from edgemodel_server.runtimes import Model


class UnloadedModel:
    """What is still known of a model that is not in memory."""

    def __init__(self, model: Model) -> None:
        self.signature: Signature = model.signature
        self.platform = model.platform
        self.provider = model.provider

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Never called: a call waits until the model is loaded again."""
        raise RuntimeError("the model is not loaded")

    def close(self) -> None:
        """Nothing is left to close."""


def give_memory_back() -> None:
    """Return freed memory to the system; glibc alone would keep it for the next time."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
