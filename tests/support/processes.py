"""Processes of the product on the local cluster, met from outside: killed, and held still."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from demo.site import Site

OPERATOR = (b"-m", b"edgemodel_operator", b"operator")
BUILD = (b"-m", b"edgemodel_operator", b"build")


def kill_operator(site: Site) -> None:
    """Kill the operator's process as the kernel would, without a word; on a foreign cluster, its pod."""
    if site.cluster.name != "local":
        site.cluster.kubectl(
            "delete", "pods", "--namespace", "edgemodel-system", "--selector",
            "app.kubernetes.io/component=operator", "--grace-period=0", "--force",
        )  # fmt: skip
        return
    (number,) = _find(OPERATOR)
    os.kill(number, signal.SIGKILL)


@contextmanager
def held_build(site: Site, timeout_s: float = 60) -> Iterator[None]:
    """Catch the next build Job's process as it starts and hold it still as long as the block lasts.

    On a foreign cluster nothing is held: the Job may have ended before the block does.
    """
    if site.cluster.name != "local":
        yield
        return
    ends = time.monotonic() + timeout_s
    while not (found := _find(BUILD)):
        if time.monotonic() > ends:
            raise TimeoutError(f"no build Job started within {timeout_s:g} s")
        time.sleep(0.005)
    for number in found:
        os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        for number in found:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGCONT)


def _find(program: tuple[bytes, ...]) -> list[int]:
    """Find the processes in containers of the cluster that run a program of the product."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            in_cluster = b"/edge-" in (folder / "cgroup").read_bytes()
        except OSError:
            continue
        if in_cluster and tuple(arguments[1:4]) == program:
            found.append(int(folder.name))
    return found
