"""Starting the programs of the cluster so that they outlive whoever started them, and finding them again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from cluster.cgroups import create_group
from cluster.commands import run, system_environment
from cluster.places import LOGS, RUN

_RECORDS = RUN / "processes"

# Joins the group before the program starts, so that nothing it forks can be outside, then detaches it.
_LAUNCH = 'echo $$ > "$1" || exit 1; log="$2"; shift 2; setsid "$@" >>"$log" 2>&1 </dev/null & echo $!'


@dataclass(frozen=True)
class Unit:
    """One program of one machine: `Unit("edge-a", "kubelet")`."""

    machine: str
    program: str

    @property
    def log(self) -> Path:
        """The file with everything that the program wrote."""
        return LOGS / f"{self.machine}.{self.program}.log"

    @property
    def record(self) -> Path:
        """The file that says which process it is."""
        return _RECORDS / f"{self.machine}.{self.program}.json"

    @override
    def __str__(self) -> str:
        return f"{self.machine}/{self.program}"


def start(unit: Unit, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Start a program of the cluster in the background, unless it runs already, and return its process id."""
    running = pid_of(unit)
    if running is not None:
        return running
    members = create_group(unit.machine)
    for folder in (LOGS, _RECORDS):
        folder.mkdir(parents=True, exist_ok=True)
    environment = {**system_environment(), **(env or {})}
    launched = run(["/bin/sh", "-c", _LAUNCH, "sh", str(members), str(unit.log), *argv], env=environment)
    pid = int(launched)
    unit.record.write_text(json.dumps({"pid": pid, "started": started_at(pid)}), encoding="utf-8")
    return pid


def pid_of(unit: Unit) -> int | None:
    """Return the process id of a program, or None when it does not run."""
    try:
        record = json.loads(unit.record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    pid = int(record["pid"])
    return pid if record["started"] and started_at(pid) == record["started"] else None


def started_at(pid: int) -> str:
    """Return when a process started, in clock ticks since boot: with its id, a name that is never used twice.

    Returns the empty string for a process that is gone or a zombie.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # field 3 (the state) comes first; field 22 is the start time
    return "" if fields[0] in {"Z", "X"} else fields[19]


def last_lines(unit: Unit, count: int = 60) -> list[str]:
    """Return the end of a program's log."""
    try:
        with unit.log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 200 * 1024))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def logged_units() -> list[Unit]:
    """Return every program that has a log, in the order of their names."""
    names = sorted(path.name.removesuffix(".log") for path in LOGS.glob("*.log"))
    return [Unit(*name.split(".", 1)) for name in names]
