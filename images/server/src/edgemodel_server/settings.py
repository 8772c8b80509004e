"""The command line: the only reader of ``argv``, turned into frozen settings once."""

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from edgemodel_server import __version__
from edgemodel_server.formats import RUNTIMES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


@dataclass(frozen=True, slots=True)
class NamedPath:
    """The value of ``[NAME=]PATH``; ``name`` is None where only a path was given."""

    name: str | None
    path: Path


@dataclass(frozen=True, slots=True)
class NamedRuntime:
    """The value of ``[NAME=]RUNTIME``; ``name`` is None where only a runtime was given."""

    name: str | None
    runtime: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a user can set; see ``--help`` for the meaning of each field. Seconds and bytes."""

    models: tuple[NamedPath, ...]
    model_root: Path
    host: str | None
    http_port: int
    grpc_port: int | None
    golden: tuple[NamedPath, ...]
    golden_tolerance: float
    runtimes: tuple[NamedRuntime, ...]
    require_provider: str | None
    provider_options: Mapping[str, str]
    allow_cpu_fallback: bool
    delegate: Path | None
    drain_seconds: float
    max_body_bytes: int
    max_connections: int
    max_picture_pixels: int
    max_queue: int
    threads: int | None
    max_batch_size: int
    max_delay: float
    idle_unload: float
    max_cpu_percent: float | None
    access_log: float | None
    prefetch: bool
    check: bool

    def golden_for(self, model: str) -> Path | None:
        """Return the golden file of a model: the one for its name, else the one without a name."""
        by_name = {golden.name: golden.path for golden in self.golden}
        return by_name.get(model, by_name.get(None))

    def runtime_for(self, model: str) -> str | None:
        """Return the runtime chosen for a model: the one for its name, else the one without a name."""
        by_name = {chosen.name: chosen.runtime for chosen in self.runtimes}
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
        grpc_port=options.grpc_port,
        golden=tuple(options.golden),
        golden_tolerance=options.golden_tolerance,
        runtimes=tuple(options.runtime),
        require_provider=options.require_provider,
        provider_options=dict(options.provider_option),
        allow_cpu_fallback=options.allow_cpu_fallback,
        delegate=options.delegate,
        drain_seconds=options.drain_seconds,
        max_body_bytes=options.max_body_bytes,
        max_connections=options.max_connections,
        max_picture_pixels=options.max_picture_pixels,
        max_queue=options.max_queue,
        threads=options.threads,
        max_batch_size=options.max_batch_size if options.batching == "auto" else 1,
        max_delay=options.max_delay_ms / 1000,
        idle_unload=options.idle_unload,
        max_cpu_percent=options.max_cpu_percent,
        access_log=options.access_log,
        prefetch=options.prefetch,
        check=options.check,
    )


def refuse_command_line(sentence: str) -> NoReturn:
    """Exit with status 2, the usage and a sentence: for what shows only when the models are known."""
    _make_parser().error(sentence)


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
    add("--grpc-port", type=_parse_port, default=None, metavar="N",
        help="serve gRPC, too (default: REST only; 0: any free one)")  # fmt: skip
    add("--golden", action="append", default=[], type=_parse_named_path, metavar="[NAME=]FILE",
        help="golden sample that a model must reproduce before it is ready; repeatable")  # fmt: skip
    add("--golden-tolerance", type=_parse_non_negative, default=1e-2, metavar="X",
        help="largest absolute difference to the golden outputs (default: %(default)s)")  # fmt: skip
    _add_runtime_options(parser)
    add("--drain-seconds", type=_parse_non_negative, default=5.0, metavar="S",
        help="how long to go on answering after SIGTERM (default: %(default)s)")  # fmt: skip
    add("--max-body-bytes", type=_parse_positive, default=64 << 20, metavar="N",
        help="largest request body (default: %(default)s)")  # fmt: skip
    add("--max-picture-pixels", type=_parse_positive, default=1 << 24, metavar="N",
        help="largest width times height of a picture (default: %(default)s)")  # fmt: skip
    add("--max-connections", type=_parse_positive, default=1024, metavar="N",
        help="HTTP connections at once, and as many of gRPC (default: %(default)s)")  # fmt: skip
    add("--max-queue", type=_parse_positive, default=64, metavar="N",
        help="requests that may wait per model before 503 (default: %(default)s)")  # fmt: skip
    add("--threads", type=_parse_positive, default=None, metavar="N",
        help="computations at once (default: the processors this process may use)")  # fmt: skip
    add("--access-log", type=_parse_sample, default=None, metavar="off|all|SAMPLE",
        help="one JSON line per request: none (default), all, or a share of them from 0 to 1; "
             "unless off, what failed is always logged")  # fmt: skip
    _add_engine_options(parser)
    return parser


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--batching", choices=("auto", "off"), default="auto",
        help="auto: share a computation where that was measured to pay (default: %(default)s)")  # fmt: skip
    add("--max-batch-size", type=_parse_positive, default=32, metavar="N",
        help="rows that may share a computation (default: %(default)s)")  # fmt: skip
    add("--max-delay-ms", type=_parse_non_negative, default=0.0, metavar="MS",
        help="how long a request may wait for others to share with (default: %(default)s)")  # fmt: skip
    add("--idle-unload", type=_parse_non_negative, default=0.0, metavar="S",
        help="give the memory of an unused model back; 0: never (default: %(default)s)")  # fmt: skip
    add("--max-cpu-percent", type=_parse_percent, default=None, metavar="P",
        help="processor time to use at most, in percent of the processors this process may use")  # fmt: skip


def _add_runtime_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("runtimes and their execution providers").add_argument
    add("--runtime", action="append", default=[], type=_parse_named_runtime, metavar="[NAME=]RUNTIME",
        help=f"{', '.join(RUNTIMES)} (default: by the model's format); repeatable")  # fmt: skip
    add("--require-provider", metavar="NAME",
        help="execution provider or OpenVINO device that must compute the whole model")  # fmt: skip
    add("--provider-option", action="append", default=[], type=_parse_option, metavar="KEY=VALUE",
        help="option of the provider, device or delegate, in its own words; repeatable")  # fmt: skip
    add("--delegate", type=Path, metavar="FILE",
        help="library of the LiteRT delegate that must compute the whole model")  # fmt: skip
    add("--allow-cpu-fallback", action="store_true",
        help="let the CPU compute those operations that the provider lacks")  # fmt: skip


def _parse_named_runtime(text: str) -> NamedRuntime:
    name, equals, runtime = text.rpartition("=")
    if runtime not in RUNTIMES:
        raise argparse.ArgumentTypeError(f"{runtime!r} is no runtime, there are {', '.join(RUNTIMES)}")
    if equals and not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{name!r} is no model name")
    return NamedRuntime(name or None, runtime)


def _parse_option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


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


def _parse_sample(text: str) -> float | None:
    if text in ("off", "all"):
        return None if text == "off" else 1.0
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither off nor all nor a share from 0 to 1, as 0.01")
    return share


def _parse_percent(text: str) -> float:
    number = float(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return number


def _parse_non_negative(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text} is no finite number of at least 0")
    return number
