"""How many processors this process may really use: affinity and the cgroups' quotas, never the host's."""

import math
import os
from pathlib import Path, PurePosixPath

_CGROUP = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def count_usable_cpus(cgroup: Path = _CGROUP, own: Path = _OWN) -> int:
    """Return the number of processors to plan threads for, at least 1: a part of one needs a thread, too."""
    return math.ceil(measure_usable_cpus(cgroup, own))


def measure_usable_cpus(cgroup: Path = _CGROUP, own: Path = _OWN) -> float:
    """Return how many processors' time this process may use, as 0.5; more than 0.

    ``cgroup`` is where the hierarchies are mounted, ``own`` the list of the cgroups that this process is in.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Every cgroup above bounds those below it, and in a container's namespace the own one is the root.
    quotas = [_read_quota(folder) for folder in _list_folders(cgroup, own)]
    return min([float(allowed), *(quota for quota in quotas if quota is not None)])


def _list_folders(cgroup: Path, own: Path) -> list[Path]:
    """Return where quotas of this process may stand: its cgroup and all above it, in v2 and in v1."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    folders = [cgroup, cgroup / "cpu"]
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root = cgroup
        elif "cpu" in controllers.split(","):
            root = cgroup / "cpu"
        else:
            continue
        parts = PurePosixPath(path.lstrip("/")).parts
        if ".." not in parts:  # a cgroup outside the namespace, of which nothing is mounted here
            folders += [root.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return folders


def _read_quota(folder: Path) -> float | None:
    """Return the CPU quota of one cgroup in processors; None where it has none (v2, then v1)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        microseconds, every = int(quota), int(period)
    except ValueError:  # cgroup v2 says "max"
        return None
    return microseconds / every if microseconds > 0 and every > 0 else None
