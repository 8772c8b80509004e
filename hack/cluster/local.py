"""The local cluster as a whole: up, down, status."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster import control_plane, forwarder, registry
from cluster.cgroups import kill_group
from cluster.commands import ClusterError, CommandFailed, run
from cluster.faults import mend
from cluster.kernel import change_kernel, restore_kernel
from cluster.namespaces import CONTROL_PLANE, holder
from cluster.nodes import programs, start_node, write_node_identity
from cluster.ownership import Owner, changing, make_owner, read_owner, refuse_foreign, write_owner
from cluster.packages import install_packages
from cluster.places import (
    API_PORT,
    CONTROL_PLANE_ADDRESS,
    KUBECONFIG,
    NODES,
    REGISTRY,
    RUN,
    STATE,
    NodePlan,
)
from cluster.processes import Unit, last_lines, logged_units, pid_of
from cluster.progress import Progress
from cluster.tools import prepare_tools, tool

PREFERRED_API_PORT = 36443
PREFERRED_REGISTRY_PORT = 35000
_CORE = (*control_plane.PROGRAMS, registry.PROGRAM, forwarder.PROGRAM)


@dataclass(frozen=True)
class Status:
    """What runs of the cluster: its owner, and each program with whether it is alive."""

    owner: Owner | None
    programs: dict[str, bool]

    @property
    def nodes(self) -> tuple[NodePlan, ...]:
        """The nodes that are part of the cluster, on or off."""
        return tuple(node for node in NODES if f"{node.name}/holder" in self.programs)

    @property
    def core_is_alive(self) -> bool:
        """Whether control plane, registry and forwarder all run."""
        return all(self.programs.get(f"{CONTROL_PLANE}/{program}") for program in _CORE)


def status() -> Status:
    """Return what runs, from the kernel's view and not from what an earlier start intended."""
    units = [Unit(CONTROL_PLANE, program) for program in _CORE]
    for node in NODES:
        if node.disk.is_dir():
            units += [Unit(node.name, program) for program in programs(node)]
    return Status(read_owner(), {str(unit): pid_of(unit) is not None for unit in units})


def prepare(progress: Progress, *, extras: bool) -> None:
    """Install the packages and build the programs, without starting anything."""
    install_packages(progress)
    prepare_tools(progress, extras=extras)


def up(nodes: int, progress: Progress) -> Owner:
    """Start the cluster with its first `nodes` nodes (0 to 3); returns its record once all are Ready.

    What runs already is kept; a cluster whose control plane is broken is taken down first. Raises
    ClusterError, with the ends of all logs, when a part does not come up.
    """
    _require_linux_root()
    prepare(progress, extras=False)
    tool("kubectl", progress)
    with changing():
        now = status()
        refuse_foreign(now.owner)
        try:
            owner = now.owner if now.owner and now.core_is_alive else _start_core(progress)
            _start_nodes(NODES[:nodes], progress)
        except (ClusterError, OSError) as failed:
            raise ClusterError(f"{failed}\n{explain()}") from failed
    return owner


def down(progress: Progress, *, force: bool = False) -> None:
    """Remove every trace of the cluster: also of one that was killed half-way, whatever is left of it."""
    _require_linux_root()
    with changing():
        if not force:
            refuse_foreign(read_owner())
        _remove(progress)


def _require_linux_root() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise ClusterError("the local cluster needs Linux and root (namespaces, control groups, mounts)")


def _remove(progress: Progress) -> None:
    with progress.step("removing what runs"):
        kill_group()
        restore_kernel()
        _unmount_leftovers()
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree(RUN, ignore_errors=True)


def _unmount_leftovers() -> None:
    """Unmount what is below the state folder (normally nothing) before the folder is deleted."""
    for line in reversed(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()):
        target = line.split()[1]
        if target.startswith(f"{STATE}/"):
            run(["umount", "--lazy", target])


def _start_core(progress: Progress) -> Owner:
    """Start everything but the nodes, on clean ground."""
    _remove(progress)
    STATE.mkdir(parents=True, mode=0o755)
    owner = make_owner(forwarder.free_port(PREFERRED_API_PORT), forwarder.free_port(PREFERRED_REGISTRY_PORT))
    write_owner(owner)
    change_kernel()
    with progress.step("starting the control plane"):
        control_plane.start_network()
        authority = control_plane.write_identities(owner.api_port)
        for node in NODES:
            write_node_identity(authority, node)
        control_plane.start_etcd()
        control_plane.start_apiserver()
        registry.start_registry()
        pid = holder(CONTROL_PLANE)
        if pid is None:
            raise ClusterError("the control plane's network is gone")
        host, port = REGISTRY.split(":")
        forwarder.start_forwarder(
            pid,
            [
                forwarder.Route(owner.api_port, CONTROL_PLANE_ADDRESS, API_PORT),
                forwarder.Route(owner.registry_port, host, int(port)),
            ],
        )
        _await_api_server()
        control_plane.start_controllers()
        control_plane.start_dns()
    return owner


def _await_api_server() -> None:
    others = [Unit(CONTROL_PLANE, name) for name in ("etcd", registry.PROGRAM, forwarder.PROGRAM)]
    server = Unit(CONTROL_PLANE, "kube-apiserver")
    await_program(
        server, lambda: "ok" in kubectl("get", "--raw", "/readyz"), what="the API server", others=others
    )


def _start_nodes(wanted: Iterable[NodePlan], progress: Progress) -> None:
    """Start the nodes of which something is missing; a node that runs, cut off or not, is left alone."""
    plans = [plan for plan in wanted if not node_is_on(plan)]
    if not plans:
        return
    with progress.step(f"starting {', '.join(plan.name for plan in plans)}"):
        with ThreadPoolExecutor(len(plans)) as pool:
            list(pool.map(start_node, plans))
        for plan in plans:
            mend(plan)
            await_node(plan)


def node_is_on(plan: NodePlan) -> bool:
    """Say whether all programs of a node run."""
    return all(pid_of(Unit(plan.name, program)) is not None for program in programs(plan))


def await_node(plan: NodePlan, *, ready: bool = True, patience_s: float = 90) -> None:
    """Wait until the API server says that a node is Ready with its devices (or that it is not Ready).

    Raises ClusterError when that does not happen in time.
    """
    condition = "Ready=true" if ready else "Ready=unknown"
    wait = ["wait", f"node/{plan.name}", f"--timeout={patience_s:.0f}s"]
    kubectl(*wait, "--for=create", timeout_s=patience_s + 5)
    kubectl(*wait, f"--for=condition={condition}", timeout_s=patience_s + 5)
    if ready and plan.npus:
        path = "{.status.allocatable.example\\.com/npu}"
        kubectl(*wait, f"--for=jsonpath={path}={plan.npus}", timeout_s=patience_s + 5)


def kubectl(*arguments: str, timeout_s: float = 30) -> str:
    """Run kubectl as the local cluster's administrator and return its output."""
    return run([str(tool("kubectl")), f"--kubeconfig={KUBECONFIG}", *arguments], timeout_s=timeout_s)


def await_program(
    unit: Unit,
    condition: Callable[[], bool],
    *,
    what: str = "",
    patience_s: float = 60,
    others: Iterable[Unit] = (),
) -> None:
    """Wait until a program does what it was started for.

    Raises ClusterError in time, and at once when it or one of the others that it needs has ended.
    """
    what = what or str(unit)
    deadline = time.monotonic() + patience_s
    while True:
        with suppress(CommandFailed):
            if condition():
                return
        ended = [str(each) for each in (unit, *others) if pid_of(each) is None]
        if ended:
            raise ClusterError(f"{what} cannot start: {', '.join(ended)} ended")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not answer within {patience_s:.0f} s")
        time.sleep(0.2)


def explain() -> str:
    """Return the last 60 lines of every program's log, for whoever has to find out why a start failed."""
    parts = []
    for unit in logged_units():
        lines = last_lines(unit)
        if lines:
            parts.append("\n".join([f"--- {unit}", *lines]))
    return "\n".join(parts)
