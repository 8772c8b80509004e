"""A real Docker Engine with everything of its own: data, runtime folder, containerd, socket. No network.

It is started without touching the machine: no iptables rules, no bridge. An engine whose test process was
killed is ended and removed by the next test run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from cluster.packages import install_packages
from cluster.progress import Progress

PACKAGES = {"docker.io": "/usr/sbin/dockerd", "busybox-static": "/bin/busybox"}
"""The engine, and a program that can be the whole content of an image."""

_PREFIX = "edgemodel-dockerd-"
_OWNER = "test.pid"


@dataclass(frozen=True)
class DockerEngine:
    """A running engine."""

    folder: Path

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        """Open a connection for looking and for faking leftovers."""
        client = docker.DockerClient(base_url=self.url, version="auto", timeout=60)
        try:
            yield client
        finally:
            client.close()

    def content(self) -> dict[str, list[Any]]:
        """List all images and containers, also those without a name."""
        with self.client() as client:
            images = [(image["Id"], image["RepoTags"]) for image in client.api.images(all=True)]
            return {"images": images, "containers": client.api.containers(all=True)}


@contextlib.contextmanager
def start_engine(*options: str) -> Iterator[DockerEngine]:
    """Run an engine, with further options, until the block ends; raises ClusterError where that cannot be."""
    install_packages(Progress(), PACKAGES)
    _remove_stale(Path(tempfile.gettempdir()))
    # Not below pytest's folder: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / _OWNER).write_text(str(os.getpid()))
    (folder / "daemon.json").write_text("{}")
    engine = DockerEngine(folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*_command(folder), *options], stdout=log, stderr=subprocess.STDOUT)
    try:
        _await_answer(engine, process)
        yield engine
    finally:
        _end(folder, process)


def _command(folder: Path) -> list[str]:
    return [
        PACKAGES["docker.io"],
        f"--config-file={folder}/daemon.json",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/docker.pid",
        f"--host=unix://{folder}/docker.sock",
        "--iptables=false",
        "--ip6tables=false",
        "--bridge=none",
    ]


def _await_answer(engine: DockerEngine, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        # The engine serves as soon as its socket is there; before that its client would leave one open.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(engine.folder / "docker.sock"))
            return
        pause.wait(0.05)
    raise RuntimeError(f"dockerd does not answer: {(engine.folder / 'log').read_text()[-2000:]}")


def _end(folder: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    """End the engine, then its containerd by their own pid files, and remove the folder with its mounts."""
    if process is not None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
    for name in ("docker.pid", "exec/containerd/containerd.pid"):
        _kill(folder / name, folder)
    if process is not None:
        process.wait(timeout=30)
    for mount in sorted(_mounts_below(folder), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(pid_file: Path, folder: Path) -> None:
    """Kill the process that the file names, if it still is one of this folder."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def _mounts_below(folder: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def _remove_stale(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            if not Path(f"/proc/{int((folder / _OWNER).read_text())}").exists():
                _end(folder)
