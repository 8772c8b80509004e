"""The signer as it runs, on loopback, with a small Kubernetes API behind it, and the operator's side."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from typing_extensions import override

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.adapters.remote_signer import RemoteKeys, SignerAddress
from edgemodel_operator.adapters.signer_protocol import AUDIENCE
from edgemodel_operator.settings import Settings, SignerSettings, SigningCommand, SigningSettings
from edgemodel_operator.signer.main import serve
from edgemodel_operator.signing.keys import generate_key_pair, secret_data
from support.kube_api import KubeApiServer, kube_api_server

NAMESPACE = "edgemodel-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:edgemodel-operator"
TOKEN = "token-of-the-operator"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
PASSWORD = b"password"


def fresh_secret(password: bytes = PASSWORD) -> dict[str, bytes]:
    """Make the fields of a signing Secret."""
    return secret_data(generate_key_pair(password), password)


class SiteApi(KubeApiServer):
    """The small API, which also reviews tokens: `tokens` maps each to the account that it proves."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = {TOKEN: OPERATOR}

    async def put_secret(self, name: str, data: Mapping[str, bytes]) -> None:
        """Create or replace a Secret."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        await self.put(secret_path(name), {"type": "Opaque", "data": encoded})

    @override
    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        if path != REVIEWS:
            return await super()._post(path, body)
        account = self.tokens.get(body["spec"]["token"]) if body["spec"]["audiences"] == [AUDIENCE] else None
        status: dict[str, Any] = {"authenticated": account is not None}
        if account is not None:
            status |= {"audiences": [AUDIENCE], "user": {"username": account, "uid": "u-1"}}
        return web.json_response({"status": status}, status=201)


def secret_path(name: str) -> str:
    """Give the path of a Secret."""
    return f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}"


def config_map_path(name: str = "edgemodel-signer-ca") -> str:
    """Give the path of a ConfigMap."""
    return f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}"


@dataclass
class SignerSite:
    """A signer that runs, the API behind it, and what the operator has to reach it."""

    server: SiteApi
    api: KubeApi
    settings: Settings
    token_file: Path
    session: aiohttp.ClientSession
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.settings.signer.port}"

    @property
    def host(self) -> str:
        """The name in its certificate."""
        return f"{self.settings.signer.service_name}.{NAMESPACE}.svc"

    def keys(self) -> RemoteKeys:
        """Give the operator's side."""
        address = SignerAddress(
            self.url, self.host, NAMESPACE, self.settings.signer.config_map_name, self.token_file
        )
        return RemoteKeys(Cluster(self.api, NAMESPACE, "operator-0"), self.session, address)

    async def start(self) -> None:
        """Run the program until it is ready."""
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(serve(self.settings, self.api, self._stop))
        ready = f"http://127.0.0.1:{self.settings.metrics_port}/readyz"
        while not await self._says_ok(ready):
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End the program as SIGTERM does."""
        self._stop.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def ask(
        self, method: str, path: str, *, token: str | None = TOKEN, body: bytes | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Ask as anybody may who knows the certificate; gives status and JSON."""
        bundle = self.server.objects[config_map_path()]["data"]["ca.crt"]
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self.session.request(
            method,
            f"{self.url}{path}",
            data=None if body is None else io.BytesIO(body),
            headers=headers,
            ssl=ssl.create_default_context(cadata=bundle),
            server_hostname=self.host,
        ) as response:
            return response.status, await response.json()

    async def metrics(self) -> str:
        """Give what Prometheus sees."""
        async with self.session.get(f"http://127.0.0.1:{self.settings.metrics_port}/metrics") as response:
            return await response.text()

    async def _says_ok(self, url: str) -> bool:
        if self._task is not None and self._task.done():
            self._task.result()
        try:
            async with self.session.get(url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@contextlib.asynccontextmanager
async def signer_site(
    folder: Path,
    secrets: tuple[str, ...] = ("current",),
    repositories: tuple[str, ...] = ("**",),
    command: SigningCommand | None = None,
) -> AsyncIterator[SignerSite]:
    """Run a signer; its Secrets are still missing, and its ConfigMap is empty as the chart makes it."""
    async with kube_api_server(SiteApi()) as (server, api), aiohttp.ClientSession() as session:
        assert isinstance(server, SiteApi)
        await server.put(config_map_path(), {"kind": "ConfigMap"})
        await server.put(secret_path("edgemodel-signer-tls"), {"type": "Opaque"})
        token_file = folder / "token"
        token_file.write_text(TOKEN)
        settings = Settings(
            namespace=NAMESPACE,
            pod_name="signer-0",
            signing=SigningSettings(
                secret_names=secrets, repositories=repositories, command=command or SigningCommand()
            ),
            signer=SignerSettings(port=_free_port()),
            metrics_port=_free_port(),
        )
        site = SignerSite(server, api, settings, token_file, session)
        await site.start()
        try:
            yield site
        finally:
            await site.stop()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
