"""Compiles Python sources listed on standard input; run by `bytecode` in a fresh, isolated interpreter.

Each line is a JSON list: the file to read, the path it will have in the image, and the .pyc to write. A
process of its own with a fixed hash seed makes the result independent of what the caller has loaded.
"""

from __future__ import annotations

import json
import py_compile
import sys

MODE = py_compile.PycInvalidationMode.UNCHECKED_HASH

for line in sys.stdin:
    source, shown, compiled = json.loads(line)
    try:
        py_compile.compile(source, cfile=compiled, dfile=shown, doraise=True, invalidation_mode=MODE)
    except (py_compile.PyCompileError, ValueError):
        continue  # some packages carry templates and broken samples, which nothing imports
