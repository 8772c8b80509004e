"""Which operators the runtime of a variant has, asked of the very library that the lock pins.

What comes out goes into the label `edgemodel.dev/operators` of the image: format -> domain -> operator -> the
ranges of versions, first and last, in which the runtime has it. What a version is, and what the domains are,
differs by format: `edgemodel_operator.build.operators` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .ranges import Operators

LIBRARIES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "onnxruntime": (("ONNX", "onnxruntime"),),
    "litert": (("TFLite", "litert"),),
    "openvino": (("OpenVINO", "openvino"),),
}
"""The first word of a variant -> the formats that are asked for, and the modules that ask."""


def operators_of(variant: str) -> dict[str, Operators]:
    """Give the operators of a runtime variant (`onnxruntime-cpu`), by format; nothing for one not known.

    The libraries of this machine are asked, which the same lock pins as those of the images: about a second,
    for OpenVINO half a minute. All variants of ONNX Runtime hold the CPU provider, which runs what
    another one leaves, so that its operators are those of every one of them.
    """
    library = variant.partition("-")[0]
    return {model_format: _ask(module) for model_format, module in LIBRARIES.get(library, ())}


def _ask(module: str) -> Operators:
    # One library each: none of them is needed where another one is asked.
    ask: Callable[[], Operators]
    match module:
        case "onnxruntime":
            from .onnxruntime import ask
        case "litert":
            from .litert import ask
        case _:
            from .openvino import ask
    return ask()
