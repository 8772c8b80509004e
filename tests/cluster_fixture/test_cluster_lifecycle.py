"""Starting, crashing, stopping: afterwards the machine must look as it did before.

These tests start and stop the machine's cluster, so they only run while none is up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import cgroups, local
from cluster.backends.local import reason_against
from cluster.kernel import COVERED_FOLDERS, arm64_programs
from cluster.namespaces import CONTROL_PLANE, holder
from cluster.places import CHECKOUT, LOGS, RUN, STATE
from cluster.processes import Unit, pid_of
from cluster.progress import Progress
from cluster.pytest_plugin import required

QUIET = Progress(quiet=True)
SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")


def machine() -> dict[str, object]:
    """What a cluster changes on the machine, as far as it can be seen from outside of it."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return {
        "sysctls": {name: Path("/proc/sys", name).read_text(encoding="ascii") for name in SYSCTLS},
        "mounts": {line.split()[1] for line in mounts},
        "folders": {name: Path(name).exists() for name in (*COVERED_FOLDERS, str(STATE), str(RUN))},
        "groups": sorted(Path("/sys/fs/cgroup").glob(f"**/{cgroups.ROOT_NAME}")),
        "processes": cgroups.processes(),
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "handlers": sorted(path.name for path in Path("/proc/sys/fs/binfmt_misc").glob("edgemodel*")),
    }


def wait_for(what: str, condition: Callable[[], bool], *, patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} does not happen"
        time.sleep(0.05)


@pytest.fixture
def untouched() -> Iterator[dict[str, object]]:
    """Yield how the machine looks without a cluster, and leave it without one."""
    reason = reason_against()
    if reason:
        pytest.skip(f"no local cluster here: {reason}")
    if local.status().owner is not None:
        why = "a local cluster is up, and these tests would take it down"
        if required():
            pytest.fail(f"EDGE_REQUIRE is set, but {why}", pytrace=False)
        pytest.skip(why)
    local.down(QUIET)
    yield machine()
    local.down(QUIET)


def start_up() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "hack")}
    return subprocess.Popen(
        [sys.executable, "-m", "cluster", "--quiet", "up"], env=environment, start_new_session=True
    )


@pytest.mark.parametrize("started", ["etcd", "kube-controller-manager", "edge-a", "edge-c"])
def test_a_start_that_is_killed_leaves_nothing_after_down(untouched: dict[str, object], started: str) -> None:
    log = f"{started}.kubelet.log" if started.startswith("edge") else f"{CONTROL_PLANE}.{started}.log"
    with start_up() as process:
        wait_for(f"the start of {started}", (LOGS / log).exists)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert machine() != untouched
    local.down(QUIET)
    assert machine() == untouched


def test_a_cluster_whose_processes_are_all_killed_comes_up_again(untouched: dict[str, object]) -> None:
    local.up(1, QUIET)
    for pid in cgroups.processes():
        os.kill(pid, signal.SIGKILL)
    wait_for("the end of all processes", lambda: not cgroups.processes())
    assert local.status().owner is None
    local.up(1, QUIET)
    assert "Ready" in local.kubectl("get", "nodes")
    local.down(QUIET)
    assert machine() == untouched


def test_a_machine_that_ran_arm64_programs_before_runs_them_after(untouched: dict[str, object]) -> None:
    with arm64_programs():
        able = machine()
        local.up(0, QUIET)
        local.down(QUIET)
        assert machine() == able
    assert machine() == untouched


def test_up_again_keeps_what_runs_and_starts_what_does_not(untouched: dict[str, object]) -> None:
    assert untouched
    first = local.up(1, QUIET)
    pid = holder("edge-a")
    kubelet = pid_of(Unit("edge-a", "kubelet"))
    assert kubelet
    os.kill(kubelet, signal.SIGKILL)
    wait_for("the end of the kubelet", lambda: pid_of(Unit("edge-a", "kubelet")) is None)
    assert local.up(2, QUIET) == first
    assert holder("edge-a") == pid
    assert pid_of(Unit("edge-a", "kubelet")) not in (None, kubelet)
    assert {plan.name for plan in local.status().nodes} == {"edge-a", "edge-b"}


def test_another_working_tree_is_refused_and_told_who_has_it(
    untouched: dict[str, object], tmp_path: Path
) -> None:
    assert untouched
    local.up(0, QUIET)
    (tmp_path / "hack").symlink_to(CHECKOUT / "hack")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hack")}
    for command in (["up"], ["down"]):
        argv = [sys.executable, "-m", "cluster", "--quiet", *command]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1
        assert f"belongs to {CHECKOUT}" in done.stderr
    assert local.status().core_is_alive
