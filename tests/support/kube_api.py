"""A tiny Kubernetes API for tests of our client loops: objects by path, versions, conflicts, list, watch.

It follows https://kubernetes.io/docs/reference/using-api/api-concepts/ as far as the webhook uses it:
optimistic concurrency by resourceVersion, watches from a version on, 410 Gone as an ERROR event. It knows no
schemas and no admission.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

from aiohttp import web
from kubernetes.aio import client as kubernetes_client

from edgemodel_operator.adapters.kube import KubeApi


class KubeApiServer:
    """Objects by their full path, for example `/api/v1/namespaces/x/secrets/y`.

    `refuse` maps a method and the beginning of a path to the status to answer; `calls` lists every request.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.refuse: dict[tuple[str, str], int] = {}
        self.calls: list[tuple[str, str]] = []
        self.page_size = 500
        self.url = ""
        self.client: KubeApi | None = None
        self._version = 0
        self._events: list[tuple[int, str, dict[str, Any]]] = []
        self._oldest_watchable = 0
        self._changed = asyncio.Condition()
        self.watchers = 0

    async def put(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """Create or replace an object without conditions."""
        return await self._store(path, document, "MODIFIED" if path in self.objects else "ADDED")

    async def delete(self, path: str) -> None:
        """Delete an object."""
        document = self.objects.pop(path)
        await self._emit(path, "DELETED", document)

    async def forget_history(self) -> None:
        """Make every running watch end with 410 Gone."""
        async with self._changed:
            self._oldest_watchable = self._version + 1
            self._changed.notify_all()

    async def wait_for_watcher(self) -> None:
        """Wait until somebody watches."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.watchers > 0)

    async def _store(self, path: str, document: dict[str, Any], kind: str) -> dict[str, Any]:
        stored = deepcopy(document)
        stored.setdefault("metadata", {}).setdefault("name", path.rpartition("/")[2])
        self.objects[path] = stored
        await self._emit(path, kind, stored)
        return stored

    async def _emit(self, path: str, kind: str, document: dict[str, Any]) -> None:
        async with self._changed:
            self._version += 1
            document["metadata"]["resourceVersion"] = str(self._version)
            self._events.append((self._version, path, {"type": kind, "object": deepcopy(document)}))
            self._changed.notify_all()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.calls.append((request.method, request.path))
        for (method, prefix), status in self.refuse.items():
            if method == request.method and request.path.startswith(prefix):
                return _status(status, "refused by the test")
        if request.query.get("watch") == "true":
            return await self._watch(request)
        if request.method == "GET":
            return self._get(request)
        body = json.loads(await request.read())
        return await getattr(self, f"_{request.method.lower()}")(request.path, body)  # type: ignore[no-any-return]

    def _get(self, request: web.Request) -> web.Response:
        if request.path in self.objects:
            return web.json_response(self.objects[request.path])
        if "limit" not in request.query:
            return _status(404, f"{request.path} not found")
        children = sorted(path for path in self.objects if path.startswith(f"{request.path}/"))
        start = int(request.query.get("continue", 0))
        metadata = {"resourceVersion": str(self._version)}
        if start + self.page_size < len(children):
            metadata["continue"] = str(start + self.page_size)
        items = [self.objects[path] for path in children[start : start + self.page_size]]
        return web.json_response({"metadata": metadata, "items": items})

    async def _post(self, path: str, body: dict[str, Any]) -> web.Response:
        metadata = body["metadata"]
        target = f"{path}/{metadata.get('name') or metadata['generateName'] + str(self._version)}"
        if target in self.objects:
            return _status(409, "already exists")
        return web.json_response(await self._store(target, body, "ADDED"), status=201)

    async def _put(self, path: str, body: dict[str, Any]) -> web.Response:
        return await self._write(path, body, body)

    async def _patch(self, path: str, body: dict[str, Any]) -> web.Response:
        if path not in self.objects:
            return _status(404, "not found")
        return await self._write(path, body, _merged(self.objects[path], body))

    async def _write(self, path: str, sent: dict[str, Any], result: dict[str, Any]) -> web.Response:
        if path not in self.objects:
            return _status(404, "not found")
        version = sent.get("metadata", {}).get("resourceVersion")
        if version not in {None, self.objects[path]["metadata"]["resourceVersion"]}:
            return _status(409, "the object has been modified")
        return web.json_response(await self._store(path, result, "MODIFIED"))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        seen = int(request.query["resourceVersion"])
        async with self._changed:
            self.watchers += 1
            self._changed.notify_all()
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(
                        lambda: self._version > seen or seen < self._oldest_watchable  # noqa: B023
                    )
                    gone = seen < self._oldest_watchable
                    news = [
                        event
                        for version, path, event in self._events
                        if version > seen and path.startswith(f"{request.path}/")
                    ]
                    seen = self._version
                if gone:
                    error = {"kind": "Status", "code": 410, "reason": "Expired"}
                    await _send(response, {"type": "ERROR", "object": error})
                    return response
                for event in news:
                    await _send(response, event)
        finally:
            self.watchers -= 1


@contextlib.asynccontextmanager
async def kube_api_server(
    server: KubeApiServer | None = None,
) -> AsyncIterator[tuple[KubeApiServer, KubeApi]]:
    """Run the API (one of your own, if given) on a loopback port; yields it and a client of ours for it."""
    server = server or KubeApiServer()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    configuration = kubernetes_client.Configuration(host=server.url)
    async with kubernetes_client.ApiClient(configuration) as api:
        try:
            yield server, KubeApi(api)
        finally:
            await runner.cleanup()


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(json.dumps(event).encode() + b"\n")


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def _merged(base: Any, change: Any) -> Any:
    """Merge as a strategic merge patch does: lists of objects with names are merged by name."""
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {key: _merged(base.get(key), value) for key, value in change.items()}
    if isinstance(base, list) and isinstance(change, list) and all("name" in item for item in change):
        by_name = {item["name"]: item for item in base}
        merged = {item["name"]: _merged(by_name.get(item["name"], {}), item) for item in change}
        return [merged.get(item["name"], item) for item in base]
    return change
