"""What the query of a request asks of the answer to a picture: there is no JSON that could say it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from edgemodel_server.datatypes import BYTES, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.inference import Signature
from edgemodel_server.preprocessing.schema import MAX_TOP

if TYPE_CHECKING:
    from edgemodel_server.preprocessing.classes import Classes

_KEYS = ("top", "output", "binary_data_output")
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the answer shall hold: ``outputs`` as (name, binary?), and their ``signature`` there.

    With ``classes`` the only output holds scores, of which the ``top`` best are told by name; None: as many
    as the manifest says.
    """

    outputs: tuple[tuple[str, bool], ...]
    signature: Signature
    classes: "Classes | None" = None
    top: int | None = None

    def tell(self, arrays: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return what the answer holds instead of the model's outputs, if anything."""
        if self.classes is None:
            return arrays
        return [self.classes.name(arrays[0], self.top)]


def parse_wish(target: bytes, classes: "Classes | None", signature: Signature) -> Wish:
    """Return what a request's target asks for; raises ApiError(400) with what can be asked.

    ``top=N`` for the N best classes, and ``top=0`` for tensors; ``output=NAME``, repeatable, for only some of
    the tensors; ``binary_data_output=true`` for the binary form.
    """
    top, names, binary = _parse_query(target)
    if names and top:
        raise ApiError(400, "top asks for classes and output for tensors: give only one of them")
    if classes is None and top:
        raise ApiError(400, "top asks for classes, but the model's manifest declares no classification")
    if classes is not None and not names and top != 0:
        name = classes.output.name
        told = Signature(signature.inputs, {name: TensorSpec(name, BYTES, (1, -1))})
        return Wish(((name, binary),), told, classes, top)
    for name in names:
        if name not in signature.outputs:
            known = ", ".join(f'"{known}"' for known in signature.outputs)
            raise ApiError(400, f'the model has no output "{name}", only {known}')
    return Wish(tuple((name, binary) for name in names or signature.outputs), signature)


def _parse_query(target: bytes) -> tuple[int | None, tuple[str, ...], bool]:
    """Return top, outputs and whether they shall be binary."""
    values: dict[str, list[str]] = {}
    for key, value in parse_qsl(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True):
        values.setdefault(key, []).append(value)
    for key, given in values.items():
        if key not in _KEYS:
            raise ApiError(400, f"the query has no parameter {key!r} here, only {', '.join(_KEYS)}")
        if len(set(given)) != len(given) or (len(given) > 1 and key != "output"):
            raise ApiError(400, f"the query gives {key} twice")
    (binary,) = values.get("binary_data_output", ["false"])
    if binary not in _FLAGS:
        raise ApiError(400, "the query's binary_data_output must be true or false")
    top = None
    if "top" in values:
        (text,) = values["top"]
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= MAX_TOP):
            raise ApiError(400, f"the query's top must be a whole number from 0 to {MAX_TOP}")
        top = int(text)
    return top, tuple(values.get("output", ())), _FLAGS[binary]
