"""The plain HTTP port of every program: liveness, readiness, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_REGISTRY: web.AppKey[CollectorRegistry] = web.AppKey("registry", CollectorRegistry)


@asynccontextmanager
async def serve_probes(
    port: int,
    registry: CollectorRegistry,
    ready: Callable[[], bool],
    live: Callable[[], bool],
    *,
    host: str | None = None,
) -> AsyncGenerator[int, None]:
    """Serve `/healthz`, `/readyz` and `/metrics` while the block runs; yields the port that was bound.

    `ready` and `live` are asked at each probe and must return at once. Port 0 lets the system choose; host
    None listens on all addresses.
    """
    application = web.Application()
    application[_REGISTRY] = registry
    application.router.add_get("/healthz", _probe(live))
    application.router.add_get("/readyz", _probe(ready))
    application.router.add_get("/metrics", _metrics)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _probe(condition: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if condition() else web.Response(status=503, text="not yet\n")

    return answer


async def _metrics(request: web.Request) -> web.Response:
    body = await asyncio.to_thread(generate_latest, request.app[_REGISTRY])
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
