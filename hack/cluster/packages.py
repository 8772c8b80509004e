"""The Debian packages that the nodes, and the tests around them, are made of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cluster.commands import ClusterError, CommandFailed, run
from cluster.progress import Progress

PACKAGES = {
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "/usr/sbin/iptables",
    "iproute2": "/sbin/ip",
    "conntrack": "/usr/sbin/conntrack",
    "util-linux": "/usr/bin/nsenter",
    "qemu-user-static": "/usr/libexec/qemu-binfmt/aarch64-binfmt-P",
    "docker-registry": "/usr/bin/docker-registry",
    "skopeo": "/usr/bin/skopeo",
    "umoci": "/usr/bin/umoci",
}
"""Package name → a file that shows that it is there."""

_POLICY = Path("/usr/sbin/policy-rc.d")


def missing_packages(wanted: Mapping[str, str] = PACKAGES) -> list[str]:
    """Return the names of the packages that have yet to be installed."""
    return [name for name, proof in wanted.items() if not Path(proof).exists()]


def install_packages(progress: Progress, wanted: Mapping[str, str] = PACKAGES) -> None:
    """Install what is missing, without letting any service start by itself.

    Raises ClusterError, with the command to run, when this cannot be done here.
    """
    missing = missing_packages(wanted)
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ClusterError(f"these Debian packages are missing: run `{command}` as root")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with progress.step(f"installing {', '.join(missing)}"), _services_stay_stopped():
        try:
            run(["apt-get", "update", "-qq"], timeout_s=600, env=quiet)
            run([*command.split(), "--yes", "-qq"], timeout_s=900, env=quiet)
        except CommandFailed as failed:
            raise ClusterError(f"{failed}\nTo install by hand, run `{command}` as root") from failed


@contextmanager
def _services_stay_stopped() -> Iterator[None]:
    """Refuse service starts during an installation, unless the machine already has a policy of its own."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
