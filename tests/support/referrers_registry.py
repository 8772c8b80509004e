"""A registry with the referrers API: the real one plus the one endpoint that it lacks.

Neither release of the distribution project's registry has `GET /v2/<name>/referrers/<digest>`. This proxy
passes everything on, remembers which manifests name a subject, says so in `OCI-Subject`, and answers the
endpoint as the OCI distribution specification 1.1 describes it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from support.registry import RegistryServer, free_port

_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<target>[^/]+)")
_REFERRERS = re.compile(r"/v2/(?P<name>.+)/referrers/(?P<digest>sha256:[0-9a-f]{64})")
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class ReferrersRegistry:
    """The proxy's address, and the referrers it knows by (repository, subject) and their own digest."""

    upstream: str
    host: str
    referrers: defaultdict[tuple[str, str], dict[str, dict[str, Any]]] = field(
        default_factory=lambda: defaultdict(dict)
    )


@contextlib.asynccontextmanager
async def referrers_registry(upstream: RegistryServer) -> AsyncIterator[ReferrersRegistry]:
    """Run the proxy in this event loop on its own loopback port."""
    registry = ReferrersRegistry(upstream.url, f"127.0.0.1:{free_port()}")
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", functools.partial(_answer, registry, session))
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        address, _, port = registry.host.rpartition(":")
        await web.TCPSite(runner, address, int(port)).start()
        try:
            yield registry
        finally:
            await runner.cleanup()


async def _answer(
    registry: ReferrersRegistry, session: aiohttp.ClientSession, request: web.Request
) -> web.StreamResponse:
    asked = _REFERRERS.fullmatch(request.path)
    if asked is not None and request.method == "GET":
        manifests = list(registry.referrers[asked["name"], asked["digest"]].values())
        document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
        return web.Response(body=json.dumps(document).encode(), content_type=_INDEX)
    body = await request.read() if request.can_read_body else None
    async with session.request(
        request.method,
        registry.upstream + request.raw_path,
        headers={name: value for name, value in request.headers.items() if name != "Transfer-Encoding"},
        data=body,
        allow_redirects=False,
    ) as answer:
        headers = answer.headers.copy()
        if request.method == "PUT" and answer.status == 201 and body:
            headers.extend(_remember(registry, request, body, answer.headers["Docker-Content-Digest"]))
        copied = web.StreamResponse(status=answer.status, headers=headers)
        await copied.prepare(request)
        if request.method != "HEAD":
            await copied.write(await answer.read())
        await copied.write_eof()
        return copied


def _remember(registry: ReferrersRegistry, request: web.Request, body: bytes, digest: str) -> dict[str, str]:
    put = _MANIFEST.fullmatch(request.path)
    document = json.loads(body) if put is not None else {}
    if put is None or "subject" not in document:
        return {}
    subject: str = document["subject"]["digest"]
    registry.referrers[put["name"], subject][digest] = {
        "mediaType": request.content_type,
        "digest": digest,
        "size": len(body),
        "artifactType": document.get("artifactType") or document["config"]["mediaType"],
        "annotations": document.get("annotations") or {},
    }
    return {"OCI-Subject": subject}
