"""OpenVINO's library without its converter, which reports usage to OpenVINO's maker.

Nothing here converts a model, so the converter is kept from being loaded at all. The library's import takes a
fifth of the time without it.
"""

import sys
from importlib import import_module
from typing import Any

for _module in ("openvino.tools", "openvino_telemetry"):
    sys.modules.setdefault(_module, None)  # type: ignore[arg-type]  # None makes an import of it fail

ov: Any = import_module("openvino")
"""The package ``openvino``; its types are written in C++."""
