"""Comparing what two models compute: `python -m edgemodel_operator.build.compare PARENT`.

`PARENT` is the process id of the parent; standard input holds `{"original", "rewritten", "bytes",
"tolerance"}`: two ONNX files, the size of the larger model, and how far the outputs may be apart. Models are
untrusted, so this is a program of its own, limited as the inspection is, and each model runs in a fork of it,
so that none has the memory of two and a crash is that of one. Prints one JSON object: `{"verdict", "why"}`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgemodel_operator.build.limits import (
    be_ended_first,
    die_with_parent,
    limit_hard,
    renounce_privileges,
    renounce_system_calls,
)

DATA_BYTES = 192 * 1024 * 1024
DATA_PER_MODEL_BYTE = 3
"""Private memory of one run: libraries and tensors, and what a model needs while it is loaded."""

CPU_SECONDS = 60


def main(arguments: Sequence[str]) -> int:
    """Compare two models."""
    die_with_parent(int(arguments[0]))
    renounce_privileges()
    request = json.load(sys.stdin)
    be_ended_first()
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

    given = _Run(session.answer_anything, original)
    made = _Run(session.answer_anything, rewritten)
    try:
        expected = given.result()
    except session.Unanswered as error:
        made.stop()
        return "Unknown", f"The original gives no answer here: {error}."
    try:
        found = made.result()
    except session.Unanswered as error:
        return "Different", f"The original answers, but what was made of it does not: {error}."
    apart = difference(expected, found)
    if apart <= tolerance:
        return "Equal", ""
    if difference(expected, given.again()) > tolerance:
        return "Unknown", "The original answers differently every time."
    return "Different", f"Their outputs differ by {apart:.3g}, and may differ by {tolerance:.3g}."


class _Run:
    """A model that is asked in a fork of this process, from now on."""

    def __init__(self, ask: Callable[[Path], Sequence[Any]], model: Path) -> None:
        forking = multiprocessing.get_context("fork")
        self._ask, self._model = ask, model
        self._receiver, sender = forking.Pipe(duplex=False)
        self._child = forking.Process(target=_answer, args=(ask, model, sender, os.getpid()))
        self._child.start()
        sender.close()

    def result(self) -> Sequence[Any]:
        """Wait for the answer; raises Unanswered, also when the process dies of the question."""
        from edgemodel_operator.build.compare.session import Unanswered  # noqa: PLC0415

        try:
            answered, content = self._receiver.recv()
        except (EOFError, OSError):
            answered, content = False, ""
        self._child.join()
        if not answered:
            raise Unanswered(content or f"its process ended with status {self._child.exitcode}")
        answer: Sequence[Any] = content
        return answer

    def again(self) -> Sequence[Any]:
        """Ask the same once more."""
        return _Run(self._ask, self._model).result()

    def stop(self) -> None:
        """Want no answer any more."""
        self._child.kill()
        self._child.join()


def _answer(ask: Callable[[Path], Sequence[Any]], model: Path, sender: Connection, parent: int) -> None:
    from edgemodel_operator.build.compare.session import Unanswered  # noqa: PLC0415

    die_with_parent(parent)  # no fork inherits that
    try:
        sender.send((True, ask(model)))
    except Unanswered as error:
        sender.send((False, str(error)))
    except MemoryError:
        sender.send((False, "it takes more memory than it may"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
