"""`python -m admissionbench`: measure the admission webhook on one core, print the table, and keep it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from admissionbench.agenda import Figures, measure
from admissionbench.document import describe_run, write_section
from admissionbench.report import table, verdict
from admissionbench.workplace import workplace
from bench.machine import BenchError
from cluster.progress import Progress

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when everything could be measured, whatever the figures say."""
    options = _parse_options(arguments)
    try:
        figures = asyncio.run(_run(options))
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(figures), verdict(figures), sep="\n\n")
    if options.json:
        document = {"run": describe_run(), "figures": figures.values}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    if options.write:
        write_section(_DOCUMENT, figures)
    return 0


async def _run(options: argparse.Namespace) -> Figures:
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="admissionbench-") as folder:
        progress.say("signing images, starting the program ...")
        async with workplace(Path(folder), realtime=options.realtime) as place:
            return await measure(place, options.rounds, options.seconds, progress)


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="admissionbench", description="Measure the admission webhook on one core."
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of known images (default: 5)")
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="of each load (default: 10)")
    parser.add_argument(
        "--realtime", action="store_true", help="go before everything else on a busy machine; needs root"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure as JSON")
    parser.add_argument("--write", action="store_true", help="keep the table in docs/benchmarks.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
