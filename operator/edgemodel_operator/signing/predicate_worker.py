"""A process of its own that evaluates CEL expressions: what it costs has an end that the kernel enforces.

Reads requests from its input until that ends: two frames each, a JSON list of expressions and a signed
statement, every frame behind its length in four bytes. Answers each with one line of JSON: `[index, why]` of
the first expression that does not give `true`, or `null`. The argument says how many seconds of a processor
each request may take.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any, BinaryIO

from edgemodel_operator.signing.expressions import VARIABLE, load_cel

MEMORY_BYTES = 320 * 1024**2
"""Enough for documents of several megabytes; the programs that verify have little more themselves."""
MAX_WHY = 256


def first_failure(expressions: list[str], statement: bytes) -> tuple[int, str] | None:
    """Evaluate expressions over the statement's predicate, in order; give the first that is not true."""
    cel = load_cel()
    index = 0
    try:
        document = cel.Context(variables={VARIABLE: json.loads(statement).get("predicate")})
        for index, expression in enumerate(expressions):
            value = cel.evaluate(expression, document)
            if value is not True:
                return index, f"it gives {value!r}"[:MAX_WHY]
    except BaseException as error:  # a panic of the evaluator is no Exception
        return index, f"{type(error).__name__}: {error}"[:MAX_WHY]
    return None


def main() -> None:
    """Answer requests until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (expressions := _read_frame(sys.stdin.buffer)) is not None:
        statement = _read_frame(sys.stdin.buffer) or b""
        _grant(int(sys.argv[1]))
        answer: Any = first_failure(json.loads(expressions), statement)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def _grant(seconds: int) -> None:
    """Let this process use so much more of the processor; beyond it the kernel ends it with SIGXCPU."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, resource.RLIM_INFINITY))


def _read_frame(source: BinaryIO) -> bytes | None:
    head = source.read(4)
    return source.read(int.from_bytes(head)) if len(head) == 4 else None


if __name__ == "__main__":
    main()
