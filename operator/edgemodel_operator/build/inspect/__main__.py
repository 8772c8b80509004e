"""Is this a model of its format, and what is in it? `python -m edgemodel_operator.build.inspect PARENT`.

`PARENT` is the process id of the parent; standard input holds `{"format", "skeleton", "sizes"}`: the file
to read, and the sizes (bytes) of all files of the model by their names beside it. Untrusted bytes are read
here, so this is a program of its own: the kernel limits its memory and CPU time, forbids it to write files,
to reach the network and to start programs, and it inherits neither secrets nor sockets. Prints one JSON
object: `{"ok": true, "report": …}` or `{"ok": false, "message": sentence}`, with `"outOfMemory": true` where
more memory would have helped.
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
    be_ended_first,
    container_memory,
    die_with_parent,
    limit_hard,
    limit_soft,
    renounce_privileges,
    renounce_system_calls,
)

MOST_BYTES = 1024 * 1024 * 1024
"""Address space besides the model, which may be mapped; private memory where the container has no limit."""
LEAST_BYTES = 128 * 1024 * 1024
"""Private memory in any container: twice what a common model takes."""
SHARE = 4
"""A container with this many times its memory holds the operator, and the builds that it starts at once."""
CPU_SECONDS = 60
CPU_BYTES_PER_SECOND = 20_000_000
CPU_GRACE_SECONDS = 5
"""Between the signal that says what was exceeded, and the one that nobody survives."""


def main(arguments: Sequence[str]) -> int:
    """Inspect the files of one model."""
    die_with_parent(int(arguments[0]))
    renounce_privileges()
    request = json.load(sys.stdin)
    skeleton = Path(request["skeleton"])
    size = skeleton.stat().st_size
    memory = container_memory()
    private = private_bytes(memory)
    be_ended_first()
    limit_hard(resource.RLIMIT_AS, MOST_BYTES + size)
    limit_hard(resource.RLIMIT_DATA, private)
    cpu_seconds = CPU_SECONDS + size // CPU_BYTES_PER_SECOND
    limit_hard(resource.RLIMIT_CPU, cpu_seconds + CPU_GRACE_SECONDS)
    limit_soft(resource.RLIMIT_CPU, cpu_seconds)
    limit_hard(resource.RLIMIT_FSIZE, 0)
    renounce_system_calls()
    try:
        found = inspect_files(request["format"], skeleton, request["sizes"])
        answer = {"ok": True, "report": found.to_raw()}
    except Objection as error:
        answer = {"ok": False, "message": str(error)}
    except MemoryError:
        answer = {"ok": False, "outOfMemory": True, "message": _too_large(private, memory)}
    print(json.dumps(answer))
    return 0


def private_bytes(memory: int | None) -> int:
    """Give the private memory (bytes) of this process, where the container may use `memory`."""
    return MOST_BYTES if memory is None else min(MOST_BYTES, max(LEAST_BYTES, memory // SHARE))


def _too_large(private: int, memory: int | None) -> str:
    said = f"Reading it takes more than {private >> 20} MiB of memory, though no weights are read"
    if memory is None or private == MOST_BYTES:
        return f"{said}: its graph is larger than that of any model that is served."
    return (
        f"{said}; that much is left to it of the {memory >> 20} MiB of this container: raise "
        "`operator.resources.limits.memory` of the operator's chart, for a build in a Job "
        "`builds.resources.limits.memory`."
    )


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
