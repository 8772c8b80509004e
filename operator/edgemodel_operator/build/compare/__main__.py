"""Comparing what two models compute: `python -m edgemodel_operator.build.compare PARENT`.

`PARENT` is the process id of the parent; standard input holds `{"original", "rewritten", "bytes",
"tolerance"}`: two paths, the size of the larger model, and how far the outputs may be apart. `original` is an
ONNX file, or a recording (`.npz`) with the arrays `input:NAME` and `output:NAME`. Models are untrusted, so
this is a program of its own, limited as the inspection is, and each model runs in a process of its own, so
that none has the memory of two. Prints one JSON object: `{"verdict", "why"}`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgemodel_operator.build.limits import (
    die_with_parent,
    limit_hard,
    renounce_privileges,
    renounce_system_calls,
)

DATA_BYTES = 192 * 1024 * 1024
DATA_PER_MODEL_BYTE = 3
"""Private memory of one run: libraries and tensors, and what a model needs while it is loaded."""

CPU_SECONDS = 60
_FIRST_VICTIM = "1000"


def main(arguments: Sequence[str]) -> int:
    """Compare two models."""
    die_with_parent(int(arguments[0]))
    renounce_privileges()
    request = json.load(sys.stdin)
    with suppress(OSError):  # where memory is short, the operator is to stay
        Path("/proc/self/oom_score_adj").write_text(_FIRST_VICTIM)
    limit_hard(resource.RLIMIT_DATA, DATA_BYTES + DATA_PER_MODEL_BYTE * request["bytes"])
    limit_hard(resource.RLIMIT_CPU, CPU_SECONDS)
    limit_hard(resource.RLIMIT_FSIZE, 0)
    renounce_system_calls()
    verdict, why = _compare(Path(request["original"]), Path(request["rewritten"]), request["tolerance"])
    print(json.dumps({"verdict": verdict, "why": why}))
    return 0


def _compare(original: Path, rewritten: Path, tolerance: float) -> tuple[str, str]:
    # Imported after the limits are set, and once for all runs.
    from edgemodel_operator.build.compare import session  # noqa: PLC0415
    from edgemodel_operator.build.compare.difference import difference  # noqa: PLC0415

    try:
        expected, ask_again, ask = _questions(session, original, rewritten)
    except session.Unanswered as error:
        return "Unknown", f"The original gives no answer here: {error}."
    try:
        found = _in_child(ask)
    except session.Unanswered as error:
        return "Different", f"The original answers, but what was made of it does not: {error}."
    apart = difference(expected, found)
    if apart <= tolerance:
        return "Equal", ""
    if ask_again is not None and difference(expected, _in_child(ask_again)) > tolerance:
        return "Unknown", "The original answers differently every time."
    return "Different", f"Their outputs differ by {apart:.3g}, and may differ by {tolerance:.3g}."


Ask = Callable[[], Any]


def _questions(session: Any, original: Path, rewritten: Path) -> tuple[Any, Ask | None, Ask]:
    """Give the original's answer, a way to ask it again, and the way to ask the other model the same."""
    if original.suffix == ".npz":
        inputs, outputs = _read_recording(original)
        return list(outputs.values()), None, lambda: session.answer_to(rewritten, inputs, list(outputs))
    free, expected = _in_child(lambda: session.answer_anything(original))
    return expected, lambda: session.answer(original, free), lambda: session.answer(rewritten, free)


def _read_recording(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import numpy as np  # noqa: PLC0415 - after the limits

    with np.load(path, allow_pickle=False) as recorded:
        arrays = {name: recorded[name] for name in recorded.files}
    inputs, outputs = (
        {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
        for kind in ("input:", "output:")
    )
    return inputs, outputs


def _in_child(ask: Ask) -> Any:
    """Run something in a fork of this process; raises Unanswered, also when the fork dies of it."""
    from edgemodel_operator.build.compare.session import Unanswered  # noqa: PLC0415

    forking = multiprocessing.get_context("fork")
    receiver, sender = forking.Pipe(duplex=False)
    child = forking.Process(target=_send, args=(ask, sender, os.getpid()))
    child.start()
    sender.close()
    try:
        answered, content = receiver.recv()
    except (EOFError, OSError):
        child.join()
        answered, content = False, f"its process ended with status {child.exitcode}"
    child.join()
    if not answered:
        raise Unanswered(content)
    return content


def _send(ask: Ask, sender: Connection, parent: int) -> None:
    die_with_parent(parent)  # no fork inherits that
    from edgemodel_operator.build.compare.session import Unanswered  # noqa: PLC0415

    try:
        sender.send((True, ask()))
    except Unanswered as error:
        sender.send((False, str(error)))
    except MemoryError:
        sender.send((False, "it takes more memory than it may"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
