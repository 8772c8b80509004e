"""The whole admission program on loopback, seen from the API server: real TLS, and a tiny Kubernetes API."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from edgemodel_operator.admission.main import VERDICTS_SECRET, serve
from edgemodel_operator.admission.policies import POLICIES_PATH
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.settings import AdmissionSettings, RegistrySettings, Settings
from edgemodel_operator.signing.keys import LocalKey, generate_key_pair, load_private_key
from edgemodel_operator.signing.sign import sign_image
from support.kube_api import KubeApiServer, kube_api_server
from support.registry import free_port
from support.signed_images import push_image

NAMESPACE = "edgemodel-system"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
VERDICTS = f"{SECRETS}/{VERDICTS_SECRET}"
TLS = f"{SECRETS}/edgemodel-admission-tls"
WEBHOOK = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/edgemodel-admission"
HOST = f"edgemodel-admission.{NAMESPACE}.svc"
PASSWORD = b"a password"


@dataclass(frozen=True)
class Answer:
    """The response part of an AdmissionReview."""

    allowed: bool
    message: str
    warnings: tuple[str, ...]
    seconds: float


@dataclass
class Program:
    """A running admission program, seen from the API server."""

    kube: KubeApiServer
    port: int
    metrics_port: int
    stop: asyncio.Event
    task: asyncio.Task[None]

    def trust(self) -> ssl.SSLContext:
        """Trust what the webhook configuration says."""
        webhook = self.kube.objects[WEBHOOK]["webhooks"][0]
        return ssl.create_default_context(
            cadata=base64.b64decode(webhook["clientConfig"]["caBundle"]).decode()
        )

    async def begin(self, length: int) -> asyncio.StreamWriter:
        """Announce a review of so many bytes, and send the first of them."""
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust(), server_hostname=HOST
        )
        writer.write(f"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{".encode())
        await writer.drain()
        return writer

    async def post(self, body: bytes, path: str = "/validate") -> tuple[int, dict[str, str], bytes]:
        """Send a body as the API server does, trusting the bundle in the webhook configuration."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"https://127.0.0.1:{self.port}{path}",
                data=io.BytesIO(body),
                headers={"Content-Length": str(len(body))},
                ssl=self.trust(),
                server_hostname=HOST,
            ) as response,
        ):
            return response.status, dict(response.headers), await response.read()

    async def respond(self, document: dict[str, Any], path: str) -> dict[str, Any]:
        """Send a review and give the response part of the answer."""
        status, _, body = await self.post(json.dumps(document).encode(), path)
        assert status == 200
        response: dict[str, Any] = json.loads(body)["response"]
        assert response["uid"] == "u-1"
        return response

    async def ask(self, *images: str, **request: Any) -> Answer:
        """Have a pod with these images judged."""
        began = time.perf_counter()
        response = await self.respond(review(images, **request), "/validate")
        message = response.get("status", {}).get("message", "")
        warnings = tuple(response.get("warnings", ()))
        return Answer(response["allowed"], message, warnings, time.perf_counter() - began)

    async def probe(self, path: str) -> tuple[int, str]:
        """Ask the port of probes and metrics."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.metrics_port}{path}") as response,
        ):
            return response.status, await response.text()

    async def until_ready(self) -> None:
        """Wait until the program says that it is ready."""
        async with asyncio.timeout(20):
            while True:  # readiness is asked for by polling, as the kubelet does
                with contextlib.suppress(aiohttp.ClientConnectorError):
                    if (await self.probe("/readyz"))[0] == 200:
                        return
                await asyncio.sleep(0.02)

    async def metric(self, line: str) -> float:
        """Give the value of one series."""
        for text in (await self.probe("/metrics"))[1].splitlines():
            if text.startswith(f"{line} "):
                return float(text.split()[-1])
        raise AssertionError(f"no series {line}")


def review(images: Sequence[str], **request: Any) -> dict[str, Any]:
    """Make an AdmissionReview in which kim creates a pod with these images in plant-a."""
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    pod = {"metadata": {"name": "line", "namespace": "plant-a"}, "spec": {"containers": containers}}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": "CREATE",
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "plant-a",
            "name": "line",
            "userInfo": {"username": "kim"},
            "object": pod,
            **request,
        },
    }


def new_key() -> LocalKey:
    """Make a signing key."""
    return load_private_key(generate_key_pair(PASSWORD).private_pem, PASSWORD)


def policy(name: str, glob: str, *keys: LocalKey, secret: str = "", mode: str = "Enforce") -> dict[str, Any]:
    """Make a TrustPolicy for which any of the keys, or the one in the Secret, is enough."""
    authorities: list[dict[str, Any]] = [
        {"name": f"key-{number}", "keys": [{"data": key.public_key.pem.decode()}]}
        for number, key in enumerate(keys)
    ]
    if secret:
        authorities.append({"name": "from-secret", "keys": [{"secretRef": {"name": secret}}]})
    spec = {"images": [glob], "authorities": authorities, "mode": mode}
    return {"metadata": {"name": name}, "spec": spec}


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[KubeApiServer]:
    """Run an API server that holds what the chart makes: it outlives the programs in it."""
    async with kube_api_server() as (server, api):
        service = {"name": "edgemodel-admission", "namespace": NAMESPACE}
        webhooks = [{"name": "pods.edgemodel.dev", "clientConfig": {"service": service}}]
        await server.put(WEBHOOK, {"webhooks": webhooks})
        for secret in (VERDICTS, TLS):
            await server.put(secret, {"type": "Opaque"})
        server.client = api
        yield server


@contextlib.asynccontextmanager
async def running_in(
    server: KubeApiServer, *plain_http: str, drain_seconds: float = 0.0
) -> AsyncIterator[Program]:
    """Run a replica; it has read all policies and is told to end after the block."""
    assert server.client is not None
    settings = Settings(
        namespace=NAMESPACE,
        metrics_port=free_port(),
        admission=AdmissionSettings(port=free_port()),
        registries=RegistrySettings(plain_http=plain_http),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(serve(settings, server.client, stop, drain_seconds=drain_seconds))
    program = Program(server, settings.admission.port, settings.metrics_port, stop, task)
    try:
        await program.until_ready()
        yield program
    finally:
        stop.set()
        await task


@contextlib.asynccontextmanager
async def running(*plain_http: str, drain_seconds: float = 0.0) -> AsyncIterator[Program]:
    """Run one replica in a site of its own."""
    async with site() as server, running_in(server, *plain_http, drain_seconds=drain_seconds) as program:
        yield program


async def put_policy(program: Program, document: dict[str, Any]) -> None:
    """Store a policy and wait until the program has seen it."""
    await program.kube.put(f"{POLICIES_PATH}/{document['metadata']['name']}", document)
    count = sum(path.startswith(f"{POLICIES_PATH}/") for path in program.kube.objects)
    async with asyncio.timeout(20):
        while await program.metric("edgemodel_admission_policies") != count:
            await asyncio.sleep(0.01)


async def signed(client: RegistryClient, registry: str, repository: str, *keys: LocalKey) -> Reference:
    """Push an image and sign it; gives its name by digest."""
    pushed = await push_image(client, Reference(registry, repository), repository.encode())
    for key in keys:
        await sign_image(client, pushed.index, [key])
    return pushed.index
