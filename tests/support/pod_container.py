"""Running a program as in a container of a pod, with runc: an image's file system, and a pod's rights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.packages import PACKAGES, install_packages
from cluster.progress import Progress
from edgemodel_operator.build.dockerfile.buildah_pod import PodRights

FIRST_HOST_USER = 1_000_000
"""Whom the users of a pod with a user namespace are on the node."""

_USERS = 65536
_MASKED = (
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_FORBIDDEN_BY_DEFAULT = ["mount", "setns", "umount2", "unshare"]
"""What containerd's RuntimeDefault profile forbids to containers without CAP_SYS_ADMIN, of what we need."""


@dataclass(frozen=True)
class PodContainer:
    """A container; `/tmp` is a volume, and the network is its own and empty.

    With a user namespace every folder above `root` must be open to everybody: so does runc mount it.
    """

    root: Path
    rights: PodRights
    environment: Mapping[str, str]
    volumes: Mapping[str, Path] = field(default_factory=dict)
    """Path in the container → folder."""

    def run(self, arguments: Sequence[str], bundle: Path) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; `bundle` is an empty folder for runc."""
        install_packages(Progress(), {"runc": PACKAGES["runc"]})
        bundle.mkdir()
        for path in ("proc", "sys", "dev", "tmp", *self.volumes):
            (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(self._spec(arguments)))
        name = f"edgemodel-test-{os.getpid()}-{abs(hash(bundle))}"
        runc = ["runc", "--root", str(bundle / "runc")]
        try:
            return subprocess.run(
                [*runc, "run", "--bundle", str(bundle), name],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        finally:
            subprocess.run([*runc, "delete", "--force", name], check=False, capture_output=True)
            shutil.rmtree(bundle / "runc", ignore_errors=True)

    def _spec(self, arguments: Sequence[str]) -> dict[str, Any]:
        pod, container = self.rights.pod["securityContext"], self.rights.container
        capabilities = [f"CAP_{name}" for name in container["capabilities"].get("add", ())]
        user = {"uid": pod["runAsUser"], "gid": pod["runAsGroup"]}
        kinds = ["pid", "ipc", "uts", "mount", "network"]
        linux: dict[str, Any] = {
            "maskedPaths": [*(f"/proc/{name}" for name in _MASKED), "/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY],
        }
        if self.rights.pod.get("hostUsers") is False:
            kinds.append("user")
            mapping = [{"containerID": 0, "hostID": FIRST_HOST_USER, "size": _USERS}]
            linux |= {"uidMappings": mapping, "gidMappings": mapping}
        if pod["seccompProfile"]["type"] != "Unconfined":
            rule = {"names": _FORBIDDEN_BY_DEFAULT, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
            linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": user,
                "cwd": "/",
                "args": list(arguments),
                "env": [f"{name}={value}" for name, value in self.environment.items()],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
                "noNewPrivileges": not container["allowPrivilegeEscalation"],
            },
            "root": {"path": str(self.root), "readonly": container["readOnlyRootFilesystem"]},
            "hostname": "pod",
            "mounts": self._mounts(),
            "linux": {**linux, "namespaces": [{"type": kind} for kind in kinds]},
        }

    def _mounts(self) -> list[dict[str, Any]]:
        plain = ["nosuid", "noexec", "nodev"]
        shapes: list[tuple[str, str, list[str]]] = [
            ("/proc", "proc", plain),
            ("/dev", "tmpfs", ["nosuid", "mode=755"]),
            ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            ("/dev/shm", "tmpfs", [*plain, "mode=1777"]),
            ("/dev/mqueue", "mqueue", plain),
            ("/sys", "sysfs", [*plain, "ro"]),
            ("/tmp", "tmpfs", ["nosuid", "nodev", "mode=1777"]),
        ]
        made = [
            {"destination": path, "type": kind, "source": kind, "options": options}
            for path, kind, options in shapes
        ]
        lent = [
            {"destination": path, "type": "bind", "source": str(folder), "options": ["rbind", "rw"]}
            for path, folder in self.volumes.items()
        ]
        return [*made, *lent]
