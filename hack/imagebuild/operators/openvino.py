"""The operators of OpenVINO: what its reader of IRs takes, by the number of the set (opset1 and so on)."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import openvino  # type: ignore[import-untyped, unused-ignore]

from .probing import ask_all, find_names
from .ranges import Operators, join_versions

_CLASSES = rb"(?<=\0)N2ov2op(?:2v\d|3v\d\d)((?:[1-9]|[1-9]\d)[A-Z][A-Za-z0-9_]*)E(?=\0)"
"""Names of the C++ classes of operators as the compiler writes them: ov::op::v1::Add is `N2ov2op2v13AddE`.
The group is the length of the last part and that part."""
_ALSO = frozenset({"Const"})
"""What an IR calls by another name than the class."""
_UNKNOWN = ("doesn't contain the operation with type", "from unsupported opset")
_LAYER = (
    '<net name="n" version="11"><layers>'
    '<layer id="0" name="l" type="{0}" version="opset{1}"><data/>'
    '<output><port id="0" precision="FP32"/></output></layer>'
    '<layer id="1" name="r" type="Result" version="opset1"><input><port id="0"/></input></layer>'
    '</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>'
)


def ask() -> Operators:
    """Give for each operator the numbers of the sets that have it; names in lower case, as it compares."""
    library = next((Path(openvino.__file__).parent / "libs").glob("libopenvino.so.*"))
    classes = (re.fullmatch(r"(\d+)(.*)", name) for name in find_names(library, _CLASSES))
    whole = {found[2] for found in classes if found and int(found[1]) == len(found[2])}
    names = sorted(whole | _ALSO)
    questions = [(name, number) for name in names for number in range(1, _newest_set() + 1)]
    known = defaultdict(list)
    for (name, number), there in zip(questions, ask_all(questions, _reads), strict=True):
        if there:
            known[name.lower()].append(number)
    return {"opset": {name: join_versions(numbers) for name, numbers in known.items()}}


def _newest_set() -> int:
    return max(int(name[5:]) for name in vars(openvino) if re.fullmatch(r"opset\d+", name))


@cache
def _core() -> openvino.Core:
    return openvino.Core()


def _reads(question: tuple[str, int]) -> bool:
    """Tell whether the reader knows the layer; that it lacks all its inputs comes later."""
    try:
        _core().read_model(_LAYER.format(*question).encode(), b"")
    except RuntimeError as error:
        return not any(words in str(error) for words in _UNKNOWN)
    return True
