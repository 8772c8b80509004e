"""A real registry (the distribution project's) on a loopback port, and a proxy that makes it misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: {deletes}}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http:
  addr: {address}
  headers: {{X-Content-Type-Options: [nosniff]}}
"""

_TLS = """\
  tls:
    certificate: {certificate}
    key: {key}
"""


@dataclass(frozen=True)
class RegistryServer:
    """A running registry; `host` is what goes in front of a repository name."""

    host: str
    storage: Path
    process_id: int

    @property
    def url(self) -> str:
        return f"http://{self.host}"


def free_port(address: str = "127.0.0.1") -> int:
    """Ask the kernel for a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def start_registry(
    folder: Path,
    *,
    address: str = "127.0.0.1",
    port: int | None = None,
    tls: tuple[Path, Path] | None = None,
    program: Path | None = None,
    auth: str = "",
    deletes: bool = True,
) -> Iterator[RegistryServer]:
    """Run the distribution project's registry with its storage in `folder` until the block ends.

    `tls` are the files of its certificate and key; without it the registry speaks plain HTTP. `program` is
    Debian's `docker-registry` by default, `auth` the YAML of its configuration's section of that name.

    Skips the test where the program is not installed; raises RuntimeError when it does not start.
    """
    program = program or _docker_registry()
    host = f"{address}:{port or free_port(address)}"
    storage, config = folder / "storage", folder / "registry.yaml"
    storage.mkdir(parents=True, exist_ok=True)
    secured = _TLS.format(certificate=tls[0], key=tls[1]) if tls else ""
    deletion = str(deletes).lower()
    config.write_text(_CONFIG.format(root=storage, address=host, deletes=deletion) + secured + auth)
    with serving([str(program), "serve", str(config)], host, folder) as process_id:
        yield RegistryServer(host, storage, process_id)


def _docker_registry() -> Path:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: `apt-get install docker-registry` as root")
    return Path(program)


@contextlib.contextmanager
def serving(command: list[str], host: str, folder: Path) -> Iterator[int]:
    """Run a server until the block ends; gives its process id once it listens."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "registry.log"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "OTEL_TRACES_EXPORTER": "none"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        _await_listening(host, process, log)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=10)


def _await_listening(host: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 20) -> None:
    address, _, port = host.rpartition(":")
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the registry ended with {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection((address, int(port)), timeout=1):
            return
        pause.wait(0.02)
    raise RuntimeError(f"the registry does not listen on {host} after {seconds} seconds.")


Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Answers a request in the registry's place, or returns None to let it through."""


@dataclass
class FaultyRegistry:
    """A reverse proxy in front of a registry; `faults` are asked in order before a request is passed on."""

    upstream: str
    host: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def requests(self, method: str, part: str = "") -> list[dict[str, str]]:
        """Return the headers of the requests seen so far with this method and this text in their path."""
        return [headers for verb, path, headers in self.seen if verb == method and part in path]


@contextlib.asynccontextmanager
async def faulty_registry(upstream: RegistryServer) -> AsyncIterator[FaultyRegistry]:
    """Run the proxy in this event loop on its own loopback port."""
    proxy = FaultyRegistry(upstream.url, f"127.0.0.1:{free_port()}")
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        application = web.Application(client_max_size=0)

        async def forward(request: web.Request) -> web.StreamResponse:
            return await _forward(proxy, session, request)

        application.router.add_route("*", "/{path:.*}", forward)
        # A canceled client must not leave handlers behind, and a broken one must not wait for keep-alives.
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        address, _, port = proxy.host.rpartition(":")
        await web.TCPSite(runner, address, int(port)).start()
        try:
            yield proxy
        finally:
            await runner.cleanup()


async def _forward(
    proxy: FaultyRegistry, session: aiohttp.ClientSession, request: web.Request
) -> web.StreamResponse:
    proxy.seen.append((request.method, request.path_qs, dict(request.headers)))
    for fault in proxy.faults:
        if (refusal := await fault(request)) is not None:
            return refusal
    # The Host header is passed on, so that the registry makes its Locations point to the proxy.
    headers = {name: value for name, value in request.headers.items() if name != "Transfer-Encoding"}
    async with session.request(
        request.method,
        proxy.upstream + request.raw_path,
        headers=headers,
        data=request.content if request.can_read_body else None,
        allow_redirects=False,
    ) as answer:
        copied = web.StreamResponse(status=answer.status, headers=answer.headers)
        await copied.prepare(request)
        if request.method != "HEAD":
            async for chunk in answer.content.iter_chunked(65536):
                await copied.write(chunk)
        await copied.write_eof()
        return copied


def fail_times(count: int, status: int, *, method: str = "", part: str = "", **headers: str) -> Fault:
    """Make a fault that answers the first `count` matching requests with a status."""
    left = count

    async def fault(request: web.Request) -> web.Response | None:
        nonlocal left
        if left and method in {"", request.method} and part in request.path_qs:
            left -= 1
            return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})
        return None

    return fault


def break_off_times(count: int, *, after: int, body: bytes, method: str, part: str) -> Fault:
    """Make a fault that announces `body` but drops the connection after `after` bytes of it."""
    left = count

    async def fault(request: web.Request) -> web.StreamResponse | None:
        nonlocal left
        if not left or method != request.method or part not in request.path_qs:
            return None
        left -= 1
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[:after])
        await asyncio.sleep(0)
        assert request.transport is not None
        request.transport.abort() if after == 0 else request.transport.close()
        return response

    return fault
