"""`docs/benchmarks.md`: the last honest run, with its method, so that anybody can repeat and doubt it."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.contenders import ECHO, PEERS
from bench.environments import REQUIREMENTS
from bench.machine import describe_machine
from bench.misses import missed_list
from bench.report import bars_table, footprint_table, other_facts, verdict, windows_table
from bench.results import Results
from bench.workplace import Pace

ADMISSION = "<!-- Written by `make bench-admission`. -->"
"""Begins the section on admission, the last but one of the page."""
BUILDING = "<!-- Written by `make bench-build`. -->"
"""Begins the section on building, the last one of the page."""

_TEMPLATE = Path(__file__).with_name("benchmarks.md.in")


def write_document(path: Path, results: Results, pace: Pace, bars: Sequence[int]) -> None:
    """Write the page."""
    described = describe_run(results)
    text = _TEMPLATE.read_text().format(
        run="\n".join(f"- {name}: {value}" for name, value in described.items()),
        verdict=verdict(results, bars),
        bars=bars_table(results, bars),
        missed=missed_list(results, bars),
        windows=pace.windows,
        seconds=pace.seconds,
        loads=windows_table(results),
        footprints=footprint_table(results),
        facts=other_facts(results),
        echo=ECHO,
    )
    path.write_text(text + written_by_others(path))


def written_by_others(path: Path) -> str:
    """Give the sections of the page that other benchmarks wrote, empty where there are none."""
    text = path.read_text() if path.exists() else ""
    begins = [text.index(mark) for mark in (ADMISSION, BUILDING) if mark in text]
    return f"\n{text[min(begins) :]}" if begins else ""


def write_json(path: Path, results: Results) -> None:
    """Write every window and every figure, for other programs."""
    windows: list[dict[str, Any]] = [
        {"server": label, **asdict(load), **asdict(window)}
        for (label, load), measured in results.windows.items() for window in measured
    ]  # fmt: skip
    document = {
        "run": describe_run(results),
        "windows": windows,
        "facts": results.facts,
        "notes": results.notes,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def describe_run(results: Results) -> dict[str, str]:
    """Say when, where and with which versions the run was made, and what it could not measure."""
    loads = [results.facts[f"load_average.{moment}"] for moment in ("before", "after")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        **describe_machine(),
        "load average": f"{loads[0]:.1f} before, {loads[1]:.1f} after (the run itself adds up to 2)",
        "peers": ", ".join(locked_versions()),
        "notes": "; ".join(note.splitlines()[0] for note in results.notes) or "none",
    }


def locked_versions() -> list[str]:
    """Return the versions of the peers, as their requirements lock them."""
    found = []
    for peer in PEERS:
        text = (REQUIREMENTS / f"{peer}.txt").read_text()
        found += re.findall(rf"^({peer}|uvicorn)==(\S+)", text, re.MULTILINE)
    return [f"{name} {version}" for name, version in sorted(set(found))]
