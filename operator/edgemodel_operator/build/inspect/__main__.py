"""Is this a model of its format, and what goes in and out? `python -m edgemodel_operator.build.inspect`.

Arguments: the format, the process id of the parent, the files. Untrusted bytes are read here, so this is a
program of its own: the kernel limits its memory and CPU time, forbids it to write files, and it inherits
neither secrets nor sockets. Prints one JSON object: `{"ok": true, "inputs", "outputs", …}` or
`{"ok": false, "message": sentence}`.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.limits import die_with_parent, limit_hard, renounce_privileges

MEMORY_BYTES = 1024 * 1024 * 1024
MEMORY_PER_MODEL_BYTE = 4
CPU_SECONDS = 60
CPU_BYTES_PER_SECOND = 20_000_000


def main(arguments: Sequence[str]) -> int:
    """Inspect the files of one model."""
    model_format, parent, *names = arguments
    files = [Path(name) for name in names]
    die_with_parent(int(parent))
    renounce_privileges()
    size = sum(file.stat().st_size for file in files)
    limit_hard(resource.RLIMIT_AS, MEMORY_BYTES + MEMORY_PER_MODEL_BYTE * size)
    limit_hard(resource.RLIMIT_CPU, CPU_SECONDS + size // CPU_BYTES_PER_SECOND)
    limit_hard(resource.RLIMIT_FSIZE, 0)
    try:
        report = {"ok": True, **inspect_files(model_format, files)}
    except Objection as error:
        report = {"ok": False, "message": str(error)}
    except MemoryError:
        report = {"ok": False, "message": "Reading the model takes more memory than a model of its size may."}
    print(json.dumps(report))
    return 0


def inspect_files(model_format: str, files: Sequence[Path]) -> dict[str, Any]:
    """Describe the model; its files as the format has them, the model first. Raises Objection."""
    # Each reader is imported after the limits are set, and only the one that is needed.
    match model_format:
        case "ONNX":
            from edgemodel_operator.build.inspect.onnx import inspect_onnx  # noqa: PLC0415

            return inspect_onnx(*files)
        case "TFLite":
            from edgemodel_operator.build.inspect.tflite import inspect_tflite  # noqa: PLC0415

            return inspect_tflite(*files)
        case "OpenVINO":
            from edgemodel_operator.build.inspect.openvino import inspect_openvino  # noqa: PLC0415

            return inspect_openvino(*files)
        case _:
            raise ValueError(f"no reader for {model_format}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
