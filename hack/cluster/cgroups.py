"""Control groups: where every process of the cluster lives, so that every one of them can be found again.

All of them are below one group of a fixed name. Killing what is in it needs no record of what was started: it
also ends the processes of a start that was killed half-way, and pods whose containerd is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cluster.commands import ClusterError

ROOT_NAME = "edgemodel-cluster"
_MOUNT = Path("/sys/fs/cgroup")
_LEAF = "system"


def _is_unified() -> bool:
    return (_MOUNT / "cgroup.controllers").exists()


def _hierarchies() -> list[Path]:
    """Return the root of each hierarchy in which groups must exist: one on cgroup v2, a dozen on v1."""
    if _is_unified():
        return [_MOUNT]
    return sorted(
        folder for folder in _MOUNT.iterdir() if (folder / "tasks").exists() and not folder.is_symlink()
    )


def create_group(name: str) -> Path:
    """Create the groups of one machine and return the file that takes the process ids of its programs."""
    for hierarchy in _hierarchies():
        group = hierarchy
        for part in (ROOT_NAME, name, _LEAF):
            if _is_unified():
                _delegate(group)
            parent, group = group, group / part
            group.mkdir(exist_ok=True)
            _inherit_cpuset(parent, group)
    main = _MOUNT if _is_unified() else _MOUNT / "pids"
    return main / ROOT_NAME / name / _LEAF / "cgroup.procs"


def kubelet_root(name: str) -> str:
    """Return the group under which the kubelet of a node puts its pods, as the kubelet names it."""
    return f"/{ROOT_NAME}/{name}"


def _delegate(group: Path) -> None:
    """Let children of a cgroup v2 group use all its controllers."""
    controllers = (group / "cgroup.controllers").read_text(encoding="ascii").split()
    for controller in controllers:
        with suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")


def _inherit_cpuset(parent: Path, group: Path) -> None:
    """Copy processors and memory nodes down: a v1 cpuset group starts empty and takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        source, target = parent / name, group / name
        if not _is_unified() and source.exists() and not target.read_text(encoding="ascii").strip():
            target.write_text(source.read_text(encoding="ascii"), encoding="ascii")


def _trees(name: str | None) -> Iterator[Path]:
    """Yield the groups of a machine (or of all machines) in every hierarchy that is mounted."""
    for mount in (
        _MOUNT,
        *(folder for folder in _MOUNT.iterdir() if folder.is_dir() and not folder.is_symlink()),
    ):
        tree = mount / ROOT_NAME / name if name else mount / ROOT_NAME
        if tree.is_dir():
            yield tree


def processes(name: str | None = None) -> set[int]:
    """Return the ids of all processes of one machine of the cluster, or of all of it."""
    found: set[int] = set()
    for tree in _trees(name):
        for members in (tree / "cgroup.procs", *tree.rglob("cgroup.procs")):
            with suppress(OSError):
                found.update(int(line) for line in members.read_text(encoding="ascii").split())
    return found - {os.getpid(), 0}


def kill_group(name: str | None = None, *, patience_s: float = 15) -> None:
    """End all processes of one machine of the cluster, or of all of it, and remove its groups.

    Raises ClusterError when a process outlives SIGKILL for longer than `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    while alive := processes(name):
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {sorted(alive)} do not end")
        time.sleep(0.05)
    for tree in _trees(name):
        _remove_tree(tree, deadline)


def _remove_tree(tree: Path, deadline: float) -> None:
    """Remove groups, children first; the kernel keeps one busy for a moment after its last process."""
    for folder, _, _ in os.walk(tree, topdown=False):
        while True:
            try:
                Path(folder).rmdir()
                break
            except FileNotFoundError:
                break
            except OSError as busy:
                if time.monotonic() > deadline:
                    raise ClusterError(f"the control group {folder} stays busy: {busy}") from None
                time.sleep(0.05)
