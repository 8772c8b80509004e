"""The section on building in `docs/benchmarks.md`: the last honest run, with its method."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.document import BUILDING
from bench.machine import describe_machine
from buildbench.misses import missed_list
from buildbench.report import bars_table, builds_table, other_figures, verdict
from buildbench.samples import Samples

_TEMPLATE = Path(__file__).with_name("building.md.in")


def write_section(page: Path, samples: Samples) -> None:
    """Write the section to the end of the page, in the place of the one of before."""
    before = page.read_text().partition(BUILDING)[0]
    page.write_text(f"{before.rstrip()}\n\n{BUILDING}\n{section(samples)}")


def section(samples: Samples) -> str:
    """Give the section."""
    return _TEMPLATE.read_text().format(
        run="\n".join(f"- {name}: {value}" for name, value in describe_run(samples).items()),
        verdict=verdict(samples),
        bars=bars_table(samples),
        missed=missed_list(samples),
        builds=builds_table(samples),
        figures=other_figures(samples),
    )


def describe_run(samples: Samples) -> dict[str, str]:
    """Say when, where and with which versions the run was made, and what it could not measure."""
    loads = [samples.best(f"load.{moment}") or 0.0 for moment in ("before", "after")]
    machine = describe_machine()
    said = subprocess.run(["buildah", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", "buildbench", *sys.argv[1:]]),
        **{name: machine[name] for name in ("processor", "memory", "kernel")},
        "buildah": said.split(" (", maxsplit=1)[0].removeprefix("buildah version "),
        "load average": f"{loads[0]:.1f} before, {loads[1]:.1f} after (the run itself adds up to 2)",
        "notes": "; ".join(note.splitlines()[0] for note in samples.notes) or "none",
    }
