"""The command line: the only reader of ``argv``, turned into frozen settings once."""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel_server import __version__

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


@dataclass(frozen=True, slots=True)
class NamedPath:
    """The value of ``[NAME=]PATH``; ``name`` is None where only a path was given."""

    name: str | None
    path: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a user can set; see ``--help`` for the meaning of each field. Seconds and bytes."""

    models: tuple[NamedPath, ...]
    model_root: Path
    host: str | None
    http_port: int
    golden: tuple[NamedPath, ...]
    golden_tolerance: float
    require_provider: str | None
    drain_seconds: float
    max_body_bytes: int
    max_queue: int
    threads: int | None
    prefetch: bool
    check: bool

    def golden_for(self, model: str) -> Path | None:
        """Return the golden file of a model: the one for its name, else the one without a name."""
        by_name = {golden.name: golden.path for golden in self.golden}
        return by_name.get(model, by_name.get(None))


def parse_settings(argv: Sequence[str]) -> Settings:
    """Return the settings in ``argv``; exits with status 2 and a sentence where they make no sense."""
    parser = _make_parser()
    options = parser.parse_args(argv)
    return Settings(
        models=tuple(options.model),
        model_root=options.model_root,
        host=options.host,
        http_port=options.http_port,
        golden=tuple(options.golden),
        golden_tolerance=options.golden_tolerance,
        require_provider=options.require_provider,
        drain_seconds=options.drain_seconds,
        max_body_bytes=options.max_body_bytes,
        max_queue=options.max_queue,
        threads=options.threads,
        prefetch=options.prefetch,
        check=options.check,
    )


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgemodel-server",
        description="Serve models over the Open Inference Protocol v2.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"edgemodel-server {__version__}")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="verify, load and test the models, then exit with 0 or 1"
    )
    what.add_argument(
        "--prefetch",
        action="store_true",
        help="verify the model files, then wait for SIGTERM without serving",
    )
    add("--model", action="append", default=[], type=_parse_named_path, metavar="[NAME=]FILE_OR_DIR",
        help="a model file, or a folder with a manifest.json; repeatable")  # fmt: skip
    add("--model-root", type=Path, default=Path("/models"), metavar="DIR",
        help="without --model: serve every folder in here (default: %(default)s)")  # fmt: skip
    add("--host", default=None, help="address to listen on (default: all)")
    add(
        "--http-port",
        type=_parse_port,
        default=8080,
        metavar="N",
        help="default: %(default)s; 0: any free one",
    )
    add("--golden", action="append", default=[], type=_parse_named_path, metavar="[NAME=]FILE",
        help="golden sample that a model must reproduce before it is ready; repeatable")  # fmt: skip
    add("--golden-tolerance", type=_parse_non_negative, default=1e-2, metavar="X",
        help="largest absolute difference to the golden outputs (default: %(default)s)")  # fmt: skip
    add("--require-provider", metavar="NAME", help="execution provider that must really be in use")
    add("--drain-seconds", type=_parse_non_negative, default=5.0, metavar="S",
        help="how long to go on answering after SIGTERM (default: %(default)s)")  # fmt: skip
    add("--max-body-bytes", type=_parse_positive, default=64 << 20, metavar="N",
        help="largest request body (default: %(default)s)")  # fmt: skip
    add("--max-queue", type=_parse_positive, default=64, metavar="N",
        help="requests that may wait per model before 503 (default: %(default)s)")  # fmt: skip
    add("--threads", type=_parse_positive, default=None, metavar="N",
        help="computations at once (default: the processors this process may use)")  # fmt: skip
    return parser


def _parse_named_path(text: str) -> NamedPath:
    name, equals, path = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        name, path = "", text
    if not path:
        raise argparse.ArgumentTypeError("the path is empty")
    return NamedPath(name or None, Path(path))


def _parse_port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port number")
    return port


def _parse_positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _parse_non_negative(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text} is no finite number of at least 0")
    return number
