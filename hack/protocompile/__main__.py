"""Write the `_pb2` modules beside the server's .proto files.

`python -m protocompile` writes them; `--check` only says which differ, and fails if any does.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

SOURCES = Path(__file__).resolve().parents[2] / "images/server/src"
"""The root of the import paths: it is part of the names under which the messages are registered."""

FOLDER = "edgemodel_server/grpc/protos"


def generate() -> dict[Path, str]:
    """Give the text of every generated file by its path below `SOURCES`."""
    protos = sorted(path.relative_to(SOURCES).as_posix() for path in (SOURCES / FOLDER).glob("*.proto"))
    with tempfile.TemporaryDirectory() as target:
        options = [f"-I{SOURCES}", f"--python_out={target}", f"--pyi_out={target}"]
        status = protoc.main(["protoc", *options, *protos])
        if status:
            raise SystemExit(f"protoc failed with status {status}")
        made = sorted(path for path in Path(target).rglob("*") if path.is_file())
        return {path.relative_to(target): path.read_text(encoding="utf-8") for path in made}


def main() -> int:
    """Write the generated files, or check that they are up to date; returns the exit status."""
    files = generate()
    old = {path.relative_to(SOURCES) for path in (SOURCES / FOLDER).glob("*_pb2.py*")}
    texts = {path: (SOURCES / path).read_text(encoding="utf-8") for path in old}
    stale = sorted(path for path in files.keys() | old if files.get(path) != texts.get(path))
    if "--check" in sys.argv[1:]:
        if stale:
            names = ", ".join(map(str, stale))
            print(f"not what the .proto files generate: {names}; run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        if path in files:
            (SOURCES / path).write_text(files[path], encoding="utf-8")
        else:
            (SOURCES / path).unlink()
        print(f"wrote {path}" if path in files else f"removed {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
