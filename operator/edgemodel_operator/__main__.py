"""`python -m edgemodel_operator PROGRAM`: the entry point of the image, which holds all programs."""

from __future__ import annotations

import sys
from importlib import import_module

PROGRAMS = {
    "operator": "edgemodel_operator.main",
    "admission": "edgemodel_operator.admission.main",
    "signer": "edgemodel_operator.signer.main",
    "node": "edgemodel_operator.node.main",
    "build": "edgemodel_operator.build.main",
    "cli": "edgemodel_operator.cli.main",
}
"""Imported by name, so that one program does not load the libraries of another."""


def main() -> None:
    """Run the program that the first argument names, with the arguments after it."""
    if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:
        sys.exit(f"usage: python -m edgemodel_operator {{{'|'.join(PROGRAMS)}}} [ARGUMENT …]")
    name = sys.argv.pop(1)
    sys.exit(import_module(PROGRAMS[name]).main())


if __name__ == "__main__":
    main()
