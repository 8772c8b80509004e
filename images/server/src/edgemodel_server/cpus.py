"""How many processors this process may really use: affinity and the cgroup's quota, never the host's."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def count_usable_cpus(cgroup: Path = _CGROUP) -> int:
    """Return the number of processors to plan threads for, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_quota(cgroup)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _read_quota(cgroup: Path) -> float | None:
    """Return the CPU quota in processors; None where there is none (cgroup v2, then v1)."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        microseconds, every = int(quota), int(period)
    except ValueError:  # cgroup v2 says "max"
        return None
    return microseconds / every if microseconds > 0 and every > 0 else None
