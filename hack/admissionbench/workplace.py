"""What the measurement stands on: the program on its own core, a real registry, signed images, an API."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from admissionbench.asking import Endpoint
from bench.machine import BenchError
from edgemodel_operator.admission.policies import POLICIES_PATH
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from support.admission_program import HOST, NAMESPACE, WEBHOOK, new_key, policy, review, site
from support.kube_api import KubeApiServer
from support.registry import free_port, start_registry
from support.signed_images import PushedImage, push_image

CORE = 0
"""Where the program runs; whoever asks, the registry and the API run on the others."""
INDEXES = 30
MANY = 100
FAMILIES = 34
"""Indexes whose digests, with those of their platforms, are MANY."""
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Images:
    """What is in the registry, by digest: indexes to ask about one by one, `many` to ask about at once."""

    indexes: tuple[str, ...]
    many: tuple[str, ...]
    unsigned: str


@dataclass(frozen=True)
class Workplace:
    """A program that answers, and where its registry is."""

    endpoint: Endpoint
    client: RegistryClient
    registry: str
    process: subprocess.Popen[bytes]
    images: Images

    @property
    def memory_mb(self) -> float:
        """The largest resident memory of the program so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
        raise BenchError("the program has ended")

    @property
    def cpu_s(self) -> float:
        """The processor time of the program so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def question(endpoint: Endpoint, *images: str, filler: int = 0) -> bytes:
    """Give a request about a new pod with these images, of the size that real ones have, or larger."""
    document = review(images)
    pod = document["request"]["object"]
    pod["metadata"]["managedFields"] = [{"manager": "kubectl", "operation": "Update", "fieldsV1": _FIELDS}]
    for container in pod["spec"]["containers"]:
        container["env"] = [{"name": f"SETTING_{number}", "value": "x" * 24} for number in range(12)]
        container["resources"] = {"requests": {"cpu": "50m", "memory": "96Mi"}}
    if filler:
        pod["metadata"]["annotations"] = {"filler": "x" * filler}
    return endpoint.request(json.dumps(document).encode())


_FIELDS: dict[str, Any] = {
    "f:spec": {f"f:field-{number}": {"f:value": {}, "f:other": {}} for number in range(40)}
}


@contextlib.asynccontextmanager
async def workplace(folder: Path, *, realtime: bool) -> AsyncIterator[Workplace]:
    """Run everything; the program has seen none of the images yet.

    With `realtime` the program and this process go before everything else on the machine (SCHED_RR).
    """
    os.sched_setaffinity(0, _other_cores())
    (folder / "registry").mkdir()
    with start_registry(folder / "registry") as registry:
        async with site() as kube, new_session() as session:
            client = RegistryClient(session, plain_http={registry.host})
            key = new_key()
            images = await _push(client, registry.host, key)
            await kube.put(f"{POLICIES_PATH}/models", policy("models", f"{registry.host}/models/**", key))
            async with _program(folder, kube, registry.host) as (process, endpoint):
                if realtime:
                    for number in (0, process.pid):
                        os.sched_setscheduler(number, os.SCHED_RR, os.sched_param(1))
                yield Workplace(endpoint, client, registry.host, process, images)


async def _push(client: RegistryClient, host: str, key: LocalKey) -> Images:
    """Push and sign images; of an index and its two platforms each is signed."""
    gate = asyncio.Semaphore(8)

    async def signed(number: int) -> PushedImage:
        async with gate:
            name = Reference(host, f"models/line-{number}")
            pushed = await push_image(client, name, f"model {number}".encode())
            await sign_image(client, pushed.index, [key])
            return pushed

    pushed = await asyncio.gather(*(signed(number) for number in range(INDEXES + FAMILIES)))
    unsigned = await push_image(client, Reference(host, "models/unsigned"), b"unsigned")
    many = [str(one) for family in pushed[INDEXES:] for one in (family.index, *family.children)]
    indexes = tuple(str(one.index) for one in pushed[:INDEXES])
    return Images(indexes, tuple(many[:MANY]), str(unsigned.index))


def _other_cores() -> set[int]:
    cores = os.sched_getaffinity(0) - {CORE}
    if not cores:
        raise BenchError("this needs two processor cores: one is the program's")
    return cores


@contextlib.asynccontextmanager
async def _program(
    folder: Path, kube: KubeApiServer, registry: str
) -> AsyncIterator[tuple[subprocess.Popen[bytes], Endpoint]]:
    port, metrics_port = free_port(), free_port()
    config = folder / "config.yaml"
    settings = {
        "admission": {"port": port},
        "metricsPort": metrics_port,
        "registries": {"plainHttp": [registry]},
    }
    config.write_text(yaml.safe_dump(settings))
    environment = {
        **os.environ,
        "EDGEMODEL_CONFIG": str(config),
        "POD_NAMESPACE": NAMESPACE,
        "KUBECONFIG": str(_kubeconfig(folder, kube.url)),
    }
    process = _start(folder, environment)
    try:
        await _wait_until_ready(process, metrics_port, folder / "program.log")
        yield process, Endpoint(port, HOST, _trust(kube))
    finally:
        process.kill()
        process.wait()


def _start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "edgemodel_operator", "admission"]
    with (folder / "program.log").open("wb") as log:
        return subprocess.Popen(
            ["taskset", "--cpu-list", str(CORE), *program], env=environment, stdout=log, stderr=log
        )


def _kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bench", "cluster": {"server": url}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "current-context": "bench",
    }
    path.write_text(yaml.safe_dump(document))
    return path


def _trust(kube: KubeApiServer) -> ssl.SSLContext:
    bundle = kube.objects[WEBHOOK]["webhooks"][0]["clientConfig"]["caBundle"]
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())


async def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.monotonic() + READY_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < ends and process.poll() is None:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
    raise BenchError(f"the program does not get ready:\n{log.read_text()[-2000:]}")
