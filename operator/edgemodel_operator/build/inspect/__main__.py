"""Is this a model of its format, and what is in it? `python -m edgemodel_operator.build.inspect PARENT`.

`PARENT` is the process id of the parent; standard input holds `{"format", "skeleton", "sizes"}`: the file
to read, and the sizes (bytes) of all files of the model by their names beside it. Untrusted bytes are read
here, so this is a program of its own: the kernel limits its memory and CPU time, forbids it to write files,
to reach the network and to start programs, and it inherits neither secrets nor sockets. Prints one JSON
object: `{"ok": true, "report": …}` or `{"ok": false, "message": sentence}`.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgemodel_operator.build.inspect.found import Found
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.limits import (
    die_with_parent,
    limit_hard,
    renounce_privileges,
    renounce_system_calls,
)

MEMORY_BYTES = 1024 * 1024 * 1024
MEMORY_PER_MODEL_BYTE = 4
CPU_SECONDS = 60
CPU_BYTES_PER_SECOND = 20_000_000


def main(arguments: Sequence[str]) -> int:
    """Inspect the files of one model."""
    die_with_parent(int(arguments[0]))
    renounce_privileges()
    request = json.load(sys.stdin)
    skeleton = Path(request["skeleton"])
    size = skeleton.stat().st_size
    limit_hard(resource.RLIMIT_AS, MEMORY_BYTES + MEMORY_PER_MODEL_BYTE * size)
    limit_hard(resource.RLIMIT_CPU, CPU_SECONDS + size // CPU_BYTES_PER_SECOND)
    limit_hard(resource.RLIMIT_FSIZE, 0)
    renounce_system_calls()
    try:
        found = inspect_files(request["format"], skeleton, request["sizes"])
        answer = {"ok": True, "report": found.to_raw()}
    except Objection as error:
        answer = {"ok": False, "message": str(error)}
    except MemoryError:
        answer = {"ok": False, "message": "Reading the model takes more memory than a model of its size may."}
    print(json.dumps(answer))
    return 0


def inspect_files(model_format: str, skeleton: Path, sizes: Mapping[str, int]) -> Found:
    """Describe the model. Raises Objection."""
    # Each reader is imported after the limits are set, and only the one that is needed.
    match model_format:
        case "ONNX":
            from edgemodel_operator.build.inspect.onnx import inspect_onnx  # noqa: PLC0415

            return inspect_onnx(skeleton, sizes)
        case "TFLite":
            from edgemodel_operator.build.inspect.tflite import inspect_tflite  # noqa: PLC0415

            return inspect_tflite(skeleton)
        case "OpenVINO":
            from edgemodel_operator.build.inspect.openvino import inspect_openvino  # noqa: PLC0415

            return inspect_openvino(skeleton, _weights_bytes(sizes))
        case _:
            raise ValueError(f"no reader for {model_format}")


def _weights_bytes(sizes: Mapping[str, int]) -> int:
    """Give the size of the `.bin` of an IR, or of the one file beside it whatever its name; 0 without one."""
    _, *others = sizes
    named = [name for name in others if name.endswith(".bin")]
    return sum(sizes[name] for name in (named or others)[:1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
