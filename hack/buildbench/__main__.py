"""`python -m buildbench`: measure how images are built, print the table of the bars, and keep it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from bench.machine import BenchError, load_average
from buildbench.agenda import Agenda, Choice, Site
from buildbench.bench_registry import counted_registry
from buildbench.document import describe_run, write_section
from buildbench.materials import Models
from buildbench.report import CONTENDERS, bars_table, builds_table, other_figures, verdict
from buildbench.samples import Samples
from buildbench.wire import file_server
from cluster.progress import Progress

_PROJECT = Path(__file__).resolve().parents[2]
_DOCUMENT = _PROJECT / "docs" / "benchmarks.md"
_SCENARIOS = ("change", "head", "cold", "reuse", "big", "loop")
_PACKAGES = {
    "buildah": "buildah",
    "docker-registry": "docker-registry",
    "qemu-user-static": "qemu-aarch64-static",
}
"""Debian package → the program in it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when everything could be measured, whatever the figures say."""
    options = _parse_options(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    samples = Samples()
    progress = Progress()
    try:
        _install(progress)
        samples.add("load.before", load_average())
        _run(options, samples, progress)
        samples.add("load.after", load_average())
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: what the measurement started is gone.", file=sys.stderr)
        return 130
    print(builds_table(samples), other_figures(samples), bars_table(samples), sep="\n\n", end="\n\n")
    print(*samples.notes, verdict(samples), sep="\n")
    if options.json:
        options.json.write_text(
            json.dumps({"run": describe_run(samples), **asdict(samples)}, indent=2) + "\n"
        )
    if options.write:
        write_section(_DOCUMENT, samples)
    return 0


def _run(options: argparse.Namespace, samples: Samples, progress: Progress) -> None:
    choice = Choice(options.builds, options.contenders, options.rounds, options.models)
    with tempfile.TemporaryDirectory(prefix="buildbench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        models = folder / "models"
        models.mkdir()
        with (
            counted_registry(folder / "registry") as registry,
            counted_registry(folder / "elsewhere") as elsewhere,
            file_server(models) as url,
        ):
            site = Site(registry, elsewhere, url, Models(models), folder, progress)
            Agenda(site, choice, samples).run()


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildbench", description="Measure how images of models are built; needs root."
    )
    parser.add_argument("--builds", type=_some_of(_SCENARIOS), default=_SCENARIOS, metavar="NAME,…",
                        help=f"only some of {', '.join(_SCENARIOS)}")  # fmt: skip
    parser.add_argument("--contenders", type=_some_of(tuple(CONTENDERS)), default=tuple(CONTENDERS),
                        metavar="NAME,…", help=f"only some of {', '.join(CONTENDERS)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each build (default: 5)")
    parser.add_argument("--models", type=int, default=50, metavar="N",
                        help="how many models come at once (default: 50)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample as JSON")
    parser.add_argument("--write", action="store_true", help="keep the tables in docs/benchmarks.md")
    return parser.parse_args(arguments)


def _some_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        return names

    return parse


def _install(progress: Progress) -> None:
    """Install the programs that are missing; raises BenchError, with the command, where that fails."""
    if os.geteuid() != 0:
        raise BenchError("buildah without privileges is slower: run this as root")
    missing = [package for package, program in _PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    with progress.step(f"install {', '.join(missing)}"):
        for argv in (["apt-get", "update", "-qq"], [*command.split(), "--yes", "-qq"]):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchError(f"`{' '.join(argv)}` failed: {done.stderr.strip()[-500:]}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
