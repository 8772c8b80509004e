"""Stand-ins for what surrounds the parts under test: a runtime, a loop, a socket. Nothing is ever late."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from edgemodel_server.app import App
from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.inference import Signature
from edgemodel_server.picture_requests import PictureQueue
from edgemodel_server.served import ServedModel, ServeOptions
from edgemodel_server.startup import Prepared
from edgemodel_server.tensors import make_bytes_array
from edgemodel_server.tuning import Tuning
from edgemodel_server.workers import Workers

VERSION = "1"


class Transport:
    """What a connection writes, and what it wants."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.reading = True
        self.ended = False  # our side is shut
        self.closed = False

    def write(self, data: bytes) -> None:
        """Keep what is sent."""
        assert not self.ended, "written behind the end"
        assert not self.closed, "written after the close"
        self.sent.append(bytes(data))

    def writelines(self, parts: Sequence[bytes]) -> None:
        """As above."""
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        """End our side."""
        self.ended = True

    def close(self) -> None:
        """End both sides."""
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        """Whether both sides have ended."""
        return self.closed

    def pause_reading(self) -> None:
        """Deliver nothing."""
        self.reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        self.reading = True

    def get_write_buffer_size(self) -> int:
        """Nothing is ever left to be sent."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There are none."""

    def get_extra_info(self, name: str) -> None:
        """Nothing is known."""


class _Timer:
    def cancel(self) -> None:
        """Do nothing."""


class Loop:
    """A loop on which it never gets later; ``timers`` counts what was asked for."""

    def __init__(self) -> None:
        self.timers = 0

    def call_later(self, seconds: float, callback: Callable[..., object], *arguments: object) -> _Timer:
        """Return what can be cancelled."""
        self.timers += 1
        return _Timer()


class Runtime:
    """A model that keeps what it was asked, and gives zeros."""

    platform = "none"
    provider = "none"

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.asked: tuple[dict[str, Tensor], tuple[str, ...]] | None = None

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Return one row of zeros for each output."""
        self.asked = dict(inputs), tuple(outputs)
        return [_make_output(self.signature.outputs[name]) for name in outputs]

    def close(self) -> None:
        """Give nothing back."""


def _make_output(spec: TensorSpec) -> Tensor:
    if spec.datatype == BYTES:
        return make_bytes_array([b"", b"a"])
    return np.zeros((1, 3), NUMPY_DTYPE[spec.datatype])


def make_app(loop: Loop, runtimes: Mapping[str, Runtime]) -> App:
    """Return an application whose models are ready and computed at once."""
    workers = Workers(cast("Any", loop), 1)
    models = []
    for name, runtime in runtimes.items():
        model = ServedModel(name, VERSION, workers, ServeOptions())
        model.start(Prepared(runtime, "", Tuning(1e-6, 1 << 20), {}, 0))
        models.append(model)
    return App(models, (), PictureQueue(workers, 1, 1))
