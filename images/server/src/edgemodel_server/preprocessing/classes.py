"""From a tensor of scores to the best classes with their names.

The form is that of Triton's classification extension: an output of datatype BYTES whose elements are
``score:index:label``, best first. It is a plain tensor of the protocol, and a person can read it.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgemodel_server.datatypes import BYTES, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.preprocessing.schema import Quantization


@dataclass(frozen=True, slots=True)
class Classes:
    """How the scores in ``output`` are told. ``labels`` is None where classes have no names."""

    output: TensorSpec
    labels: tuple[str, ...] | None
    softmax: bool
    top: int
    quantization: Quantization | None

    def __post_init__(self) -> None:
        """Raise ValueError where the output cannot hold one score per class, or per label."""
        spec, where = self.output, f'output "{self.output.name}"'
        if spec.datatype in (BYTES, "BOOL"):
            raise ValueError(f"{where} holds {spec.datatype}, no scores")
        if sum(size > 1 for size in spec.shape) > 1:
            raise ValueError(f"{where} has shape {list(spec.shape)}, not one score per class")
        if self.labels is not None and -1 not in spec.shape and prod(spec.shape) != len(self.labels):
            raise ValueError(
                f"{where} has {prod(spec.shape)} scores, but there are {len(self.labels)} labels"
            )

    def name(self, scores: Tensor, top: int | None) -> Tensor:
        """Return the ``top`` best classes (None: as many as the manifest says), BYTES of shape [1, top].

        Equal scores stand in the order of their classes. Raises ApiError(500) where the model does not give
        one finite score per label.
        """
        values, where = self._dequantize(scores), f'output "{self.output.name}"'
        if max(scores.shape, default=1) != values.size:
            raise ApiError(500, f"{where} has shape {list(scores.shape)}, not one score per class")
        if self.labels is not None and len(self.labels) != values.size:
            raise ApiError(500, f"{where} has {values.size} scores, but there are {len(self.labels)} labels")
        if not np.isfinite(values).all():
            raise ApiError(500, f"{where} holds NaN or infinity")
        if self.softmax:
            values = np.exp(values - values.max())
            values /= values.sum()
        best = np.argsort(-values, kind="stable")[: self.top if top is None else top]
        named: Tensor = np.empty((1, len(best)), dtype=np.object_)
        named[0, :] = [self._tell(int(index), values[index]) for index in best]
        return named

    def _dequantize(self, scores: Tensor) -> NDArray[np.float64]:
        values: NDArray[np.float64] = scores.reshape(-1).astype(np.float64)
        if self.quantization is None:
            return values
        return (values - self.quantization.zero_point) * self.quantization.scale

    def _tell(self, index: int, score: float) -> bytes:
        label = "" if self.labels is None else f":{self.labels[index]}"
        return f"{score:.6f}:{index}{label}".encode()
