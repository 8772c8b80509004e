"""CEL expressions over an attested document: which can be used at all. Evaluating them is `predicates`' part.

The language: https://github.com/google/cel-spec, as the crate `cel` implements it. There is one variable,
`predicate`, and no function that reads anything but its arguments.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any

from edgemodel_operator.signing.errors import BadExpression

MAX_EXPRESSION_CHARACTERS = 4096
VARIABLE = "predicate"

_loading = Lock()
_TYPES = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})
_FUNCTIONS = frozenset(
    {
        *("bytes", "contains", "double", "duration", "dyn", "endsWith", "int", "matches", "size"),
        *("startsWith", "string", "timestamp", "type", "uint"),
        *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours"),
        *("getMilliseconds", "getMinutes", "getMonth", "getSeconds"),
    }
)
_OPERATOR = re.compile(r"[_@!-]")
_LOCAL = re.compile(r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*([A-Za-z_]\w*)\s*,")
_LITERAL_PATTERN = re.compile(r"""\.\s*matches\s*\(\s*(r?'[^'\\]*'|r?"[^"\\]*")\s*\)""")


@lru_cache(maxsize=1)
def load_cel() -> Any:
    """Import the evaluator without the shell program that it also imports, which takes a second."""
    with _loading:
        placeholder = "cel.cli" not in sys.modules
        if placeholder:
            sys.modules["cel.cli"] = ModuleType("cel.cli")
        try:
            return import_module("cel")
        finally:
            if placeholder:
                del sys.modules["cel.cli"]


def check_expression(text: str) -> None:
    """Refuse an expression that could never give an answer; raises BadExpression with a sentence."""
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise BadExpression(f"it has more than {MAX_EXPRESSION_CHARACTERS} characters")
    cel = load_cel()
    try:
        program = cel.compile(text)
        for literal in _LITERAL_PATTERN.findall(text):
            cel.evaluate(f"''.matches({literal})")
    except Exception as error:
        raise BadExpression(f"it is not CEL: {' '.join(str(error).split())[:256]}") from None
    unknown = set(program.variables()) - {VARIABLE} - _TYPES - set(_LOCAL.findall(text))
    if unknown:
        raise BadExpression(
            f"it uses {min(unknown)!r}, which is no variable here: the document is {VARIABLE!r}"
        )
    functions = {name for name in program.functions() if not _OPERATOR.match(name)} - _FUNCTIONS
    if functions:
        raise BadExpression(f"it calls {min(functions)!r}, which is no function here")
