"""The registry of a run: Debian's docker-registry on an empty folder, seen through a counter."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench.asking import free_port
from buildbench.wire import Counter, wait_for_port


@contextlib.contextmanager
def counted_registry(folder: Path) -> Iterator[Counter]:
    """Run a registry in an empty folder while the block lasts."""
    port = free_port()
    storage = folder / "storage"
    storage.mkdir(parents=True)
    configuration = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    path = folder / "registry.yaml"
    path.write_text(yaml.safe_dump(configuration))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(path)], stdout=log, stderr=log,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "OTEL_TRACES_EXPORTER": "none"},
        )  # fmt: skip
    try:
        wait_for_port(port)
        with Counter(port).running() as counter:
            yield counter
    finally:
        process.terminate()
        process.wait(10)
