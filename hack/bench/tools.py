"""What is installed for a run: the load generators from Debian, and a virtual environment for each peer."""

from __future__ import annotations

import os
import shutil
import subprocess

from bench.machine import BenchError
from cluster.progress import Progress

_CLIENTS = {"wrk": "wrk", "nghttp2-client": "h2load", "util-linux": "taskset"}
"""Debian package → the program in it."""


def install_clients(progress: Progress) -> None:
    """Install the load generators that are missing; raises BenchError, with the command, where that fails."""
    missing = [package for package, program in _CLIENTS.items() if shutil.which(program) is None]
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchError(f"these programs are missing: run `{command}` as root")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with progress.step(f"install {', '.join(missing)}"):
        for argv in (["apt-get", "update", "-qq"], [*command.split(), "--yes", "-qq"]):
            done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchError(f"`{' '.join(argv)}` failed: {done.stderr.strip()[-500:]}")
