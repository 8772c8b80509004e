"""The section on admission in `docs/benchmarks.md`: the last honest run, with its method."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from admissionbench.agenda import Figures
from admissionbench.report import table, verdict
from bench.document import ADMISSION, BUILDING
from bench.machine import describe_machine, load_average

_TEMPLATE = Path(__file__).with_name("admission.md.in")


def write_section(page: Path, figures: Figures) -> None:
    """Write the section before the one on building, in the place of the one of before."""
    before, begin, after = page.read_text().partition(BUILDING)
    own = before.partition(ADMISSION)[0]
    page.write_text(f"{own.rstrip()}\n\n{ADMISSION}\n{section(figures).rstrip()}\n\n{begin}{after}")


def section(figures: Figures) -> str:
    """Give the section."""
    return _TEMPLATE.read_text().format(
        run="\n".join(f"- {name}: {value}" for name, value in describe_run().items()),
        verdict=verdict(figures),
        table=table(figures),
    )


def describe_run() -> dict[str, str]:
    """Say when and where the run was made."""
    machine = describe_machine()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", "admissionbench", *sys.argv[1:]]),
        **{name: machine[name] for name in ("processor", "memory", "kernel", "Python")},
        "load average": f"{load_average():.1f} at the end (the run itself adds up to 2)",
    }
