"""`python -m bench`: measure the inference server, print the table of the bars, and keep it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import FrameType

from bench.bars import BARS, jobs_for
from bench.contenders import PEERS
from bench.environments import make_environments
from bench.machine import CLIENT_CORES, BenchError, load_average, require_two_cores
from bench.measure import Pace, Results, Workplace, measure_model
from bench.models import make_models
from bench.report import bars_table, windows_table
from bench.tools import install_clients
from cluster.progress import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when every measured bar was reached, 1 otherwise."""
    options = _parse_options(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = _run(options)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: what the measurement started is gone.", file=sys.stderr)
        return 130
    print(windows_table(results), end="\n\n")
    print(bars_table(results, options.bars))
    print("\n".join(results.notes))
    return 0


def _run(options: argparse.Namespace) -> Results:
    require_two_cores()
    progress = Progress()
    install_clients(progress)
    environments = make_environments(options.peers, progress)
    results = Results()
    os.sched_setaffinity(0, CLIENT_CORES)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with progress.step("make the models"):
            models = make_models(folder)
        pace = Pace(options.windows, options.seconds, min(1.0, options.seconds / 3))
        work = Workplace(folder, models, environments, pace, progress)
        progress.say(f"load average {load_average():.1f}")
        jobs = sorted(jobs_for(options.bars, options.peers), key=lambda job: (job[1].model, job[1].cores))
        for (model, cores), group in groupby(jobs, key=lambda job: (job[1].model, job[1].cores)):
            measure_model(work, model, cores, list(group), results)
    return results


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure the inference server against its bars."
    )
    parser.add_argument("--bars", type=_parse_bars, default=list(BARS), metavar="N,…", help="only these bars")
    parser.add_argument("--peers", type=_parse_peers, default=list(PEERS), metavar="NAME,…",
                        help=f"only these peers: none, or some of {', '.join(PEERS)}")  # fmt: skip
    parser.add_argument("--windows", type=int, default=3, metavar="N", help="windows per load (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of a window (default: 2)")
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
