"""Model formats, and the runtimes that load them; data only, for this is read before anything is imported."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Runtime:
    """A module of ``edgemodel_server.runtimes``, the library that it needs, and how a user installs that."""

    module: str
    library: str
    install: str


RUNTIMES: Mapping[str, Runtime] = {
    "onnxruntime": Runtime("onnx", "onnxruntime", "edgemodel-server"),
    "litert": Runtime("litert", "ai_edge_litert", "edgemodel-server[litert]"),
    "openvino": Runtime("openvino", "openvino", "edgemodel-server[openvino]"),
}

FORMAT_RUNTIMES: Mapping[str, tuple[str, ...]] = {
    "ONNX": ("onnxruntime", "openvino"),
    "TFLite": ("litert",),
    "OpenVINO": ("openvino",),
}
"""Model format -> the runtimes that load it; the first one that is installed is the default."""
