"""`python -m bench`: measure the inference server, print the table of the bars, and keep it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench.agenda import Choice, measure
from bench.bars import BARS
from bench.contenders import PEERS
from bench.document import write_document, write_json
from bench.environments import make_environments
from bench.machine import CLIENT_CORES, BenchError, require_two_cores
from bench.models import make_models
from bench.report import bars_table, footprint_table, other_facts, verdict, windows_table
from bench.results import Results
from bench.tools import install_clients
from bench.workplace import Pace, Workplace
from cluster.progress import Progress

_PROJECT = Path(__file__).resolve().parents[2]
_DOCUMENT = _PROJECT / "docs" / "benchmarks.md"
_REQUESTS, _SOAK_REQUESTS = 100_000, 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when everything could be measured, whatever the figures say."""
    options = _parse_options(arguments)
    pace = Pace(options.windows, options.seconds, min(1.0, options.seconds / 3))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = _run(options, pace)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: what the measurement started is gone.", file=sys.stderr)
        return 130
    for table in (windows_table(results), footprint_table(results), other_facts(results)):
        print(table, end="\n\n")
    print(bars_table(results, options.bars), *results.notes, verdict(results, options.bars), sep="\n")
    if options.json:
        write_json(options.json, results)
    if options.write:
        write_document(_DOCUMENT, results, pace, options.bars)
    return 0


def _run(options: argparse.Namespace, pace: Pace) -> Results:
    require_two_cores()
    progress = Progress()
    install_clients(progress)
    environments = make_environments(options.peers, progress)
    os.sched_setaffinity(0, CLIENT_CORES)
    choice = Choice(options.bars, options.peers, _SOAK_REQUESTS if options.soak else _REQUESTS,
                    realtime=options.realtime)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with progress.step("make the models"):
            models = make_models(folder)
        return measure(Workplace(folder, models, environments, options.source, pace, progress), choice)


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure the inference server against its bars."
    )
    parser.add_argument("--bars", type=_parse_bars, default=list(BARS), metavar="N,…", help="only these bars")
    parser.add_argument("--peers", type=_parse_peers, default=list(PEERS), metavar="NAME,…",
                        help=f"only these peers: none, or some of {', '.join(PEERS)}")  # fmt: skip
    parser.add_argument("--windows", type=int, default=3, metavar="N", help="windows per load (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of a window (default: 2)")
    parser.add_argument("--soak", action="store_true",
                        help=f"watch the memory over {_SOAK_REQUESTS:,} requests")  # fmt: skip
    parser.add_argument("--realtime", action="store_true",
                        help="let next to nothing else run during bars 1 to 9; needs root")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every window as JSON")
    parser.add_argument("--write", action="store_true", help="keep the tables in docs/benchmarks.md")
    parser.add_argument("--source", type=Path, default=_PROJECT / "images" / "server" / "src",
                        metavar="FOLDER", help="measure the server in this folder")  # fmt: skip
    return parser.parse_args(arguments)


def _parse_bars(text: str) -> list[int]:
    bars = [int(word) for word in text.split(",")]
    if unknown := set(bars) - set(BARS):
        raise argparse.ArgumentTypeError(f"there is no bar {min(unknown)}: they go from 1 to {max(BARS)}")
    return bars


def _parse_peers(text: str) -> list[str]:
    names = [] if text == "none" else text.split(",")
    if unknown := set(names) - set(PEERS):
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}"
        )
    return names


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
