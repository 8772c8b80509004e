"""Convert one model: `python -m edgemodel_operator.build.convert PARENT`.

`PARENT` is the process id of the parent; standard input holds `{"origin", "source", "target", "inputs"}`.
The exporters load what nobody vouches for, so this is a program of its own: without network, other programs
and secrets, with bounded memory, CPU time and file sizes. Prints one JSON object: `{"ok": true, "files":
names}` or `{"ok": false, "reason": word, "message": sentence}`, where the reason is one of
`ConverterMissing`, `ConversionFailed` and `OutputsDiffer`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Sequence

from edgemodel_operator.build.convert.job import Job
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.limits import (
    die_with_parent,
    limit_hard,
    renounce_privileges,
    renounce_system_calls,
)

MEMORY_BYTES = 64 * 1024**3
"""Of address space, most of which is never touched: the libraries of PyTorch alone take 10 GiB. What bounds
the memory itself is the limit of the pod."""
CPU_SECONDS = 1800
FILE_BYTES = 1024**3
FILE_PER_SOURCE_BYTE = 8


def main(arguments: Sequence[str]) -> int:
    """Convert one model."""
    die_with_parent(int(arguments[0]))
    renounce_privileges()
    job = Job.from_raw(json.load(sys.stdin))
    size = sum(path.stat().st_size for path in job.source.parent.rglob("*") if path.is_file())
    limit_hard(resource.RLIMIT_AS, MEMORY_BYTES)
    limit_hard(resource.RLIMIT_CPU, CPU_SECONDS)
    limit_hard(resource.RLIMIT_FSIZE, FILE_BYTES + FILE_PER_SOURCE_BYTE * size)
    renounce_system_calls()
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # exporters print; what they say is for the log
        json.dump(_answer(job), answer)
    return 0


def _answer(job: Job) -> dict[str, object]:
    from edgemodel_operator.build.convert.trial import OutputsDiffer  # noqa: PLC0415 - after the limits

    try:
        return {"ok": True, "files": _exporter(job.origin)(job)}
    except ModuleNotFoundError as error:
        return {"ok": False, "reason": "ConverterMissing", "message": f"{error.name} is not installed here."}
    except OutputsDiffer as error:
        return {"ok": False, "reason": "OutputsDiffer", "message": str(error)}
    except Objection as error:
        return {"ok": False, "reason": "ConversionFailed", "message": str(error)}
    except MemoryError:
        message = "Converting the model takes more memory than there is."
        return {"ok": False, "reason": "ConversionFailed", "message": message}


def _exporter(origin: str) -> Callable[[Job], list[str]]:
    # Each takes seconds to import, and is there only in the image that is for it.
    match origin:
        case "PyTorchExport":
            from edgemodel_operator.build.convert.pytorch import convert_export  # noqa: PLC0415

            return convert_export
        case "TorchScript":
            from edgemodel_operator.build.convert.pytorch import convert_script  # noqa: PLC0415

            return convert_script
        case "Keras":
            from edgemodel_operator.build.convert.tensorflow import convert_keras  # noqa: PLC0415

            return convert_keras
        case "SavedModel":
            from edgemodel_operator.build.convert.tensorflow import convert_saved_model  # noqa: PLC0415

            return convert_saved_model
        case _:
            raise ValueError(f"no exporter for {origin}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
