"""Calls to the Kubernetes API in raw JSON.

The typed client validates and builds an object for each answer: for a list of 6,000 pods that was measured
at 4.5 s of CPU and 365 MB against 0.8 s raw. So only its configuration, authentication and connection are
used.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from edgemodel_operator.adapters.kube_error import KubeError as KubeError  # noqa: PLC0414 - its old home

MAX_ANSWER_BYTES = 32 * 1024 * 1024
WATCH_SECONDS = 240
"""The API server ends a watch after this long; a connection that hangs is noticed soon after."""
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5)
WATCH_SILENCE_SECONDS = 90
"""Every watch asks for bookmarks, which come about once a minute: after a longer silence we ask anew."""
_WATCH_TIMEOUT = aiohttp.ClientTimeout(
    total=WATCH_SECONDS + 30, sock_connect=5, sock_read=WATCH_SILENCE_SECONDS
)
_STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SECONDS)
_PAGE = "500"

MERGE_BY_KEY = "application/strategic-merge-patch+json"
"""Lists are merged by their keys, so that one webhook of a configuration can be patched alone."""
MERGE = "application/merge-patch+json"
"""What is null is removed; lists are replaced (RFC 7386)."""
APPLY = "application/apply-patch+yaml"
"""Server-side apply; JSON is YAML."""


class NoCluster(Exception):  # noqa: N818 - reads as the fact it states
    """There is neither a service account nor a usable kubeconfig."""


@dataclass(frozen=True)
class Listing:
    """The objects of a list and the version from which a watch goes on without a gap."""

    items: tuple[dict[str, Any], ...]
    resource_version: str


class KubeApi:
    """Raw JSON calls over one authenticated connection pool. Every method raises KubeError."""

    def __init__(self, api: Any) -> None:
        """Use an `ApiClient` of `kubernetes.aio`, which stays the caller's to close."""
        self._api = api

    async def get(self, path: str) -> dict[str, Any] | None:
        """Read one object; None if there is none."""
        try:
            return await self._json("GET", path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in the collection at `path`."""
        return await self._json("POST", path, body=body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object; with a resourceVersion in it, only if it is still that version (else 409)."""
        return await self._json("PUT", path, body=body)

    async def patch(self, path: str, body: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        """Patch an object, lists merged by their keys."""
        query = {"fieldManager": manager}
        return await self._json("PATCH", path, query=query, body=body, content_type=MERGE_BY_KEY)

    async def merge(self, path: str, body: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        """Patch an object by JSON merge: null removes a field."""
        query = {"fieldManager": manager}
        return await self._json("PATCH", path, query=query, body=body, content_type=MERGE)

    async def apply(self, path: str, body: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        """Apply a document server-side, taking over the fields that it names."""
        query = {"fieldManager": manager, "force": "true"}
        return await self._json("PATCH", path, query=query, body=body, content_type=APPLY)

    async def delete(self, path: str, *, propagation: str = "Background") -> bool:
        """Delete an object; false if there was none."""
        try:
            await self._json("DELETE", path, query={"propagationPolicy": propagation})
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def list(self, path: str, *, labels: str = "", fields: str = "") -> Listing:
        """Read a whole collection in pages; `labels` and `fields` are selectors."""
        items: list[dict[str, Any]] = []
        version = ""
        async with aclosing(self.pages(path, labels=labels, fields=fields)) as pages:
            async for page in pages:
                items.extend(page.items)
                version = page.resource_version
        return Listing(tuple(items), version)

    async def pages(self, path: str, *, labels: str = "", fields: str = "") -> AsyncGenerator[Listing, None]:
        """Yield a collection page by page, for one that is too large to be held at once."""
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        first = {"limit": _PAGE} | {name: value for name, value in selectors.items() if value}
        query = first
        while True:
            page = await self._json("GET", path, query=query)
            metadata = page.get("metadata") or {}
            yield Listing(tuple(page.get("items") or ()), str(metadata.get("resourceVersion", "")))
            if not metadata.get("continue"):
                return
            query = {**first, "continue": metadata["continue"]}

    async def watch(
        self, path: str, resource_version: str, *, fields: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events after a version until the watch ends; `fields` is a selector.

        The API server ends it, or WATCH_SILENCE_SECONDS without a word: whoever asks again learns why.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        if fields:
            query["fieldSelector"] = fields
        async with self._response("GET", path, query=query, timeout=_WATCH_TIMEOUT) as response:
            await _require_success(response, path)
            with suppress(aiohttp.SocketTimeoutError):
                async for line in _lines(response, path):
                    yield _parse(line, path)

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the lines of an answer in plain text as they come; the last may lack its end."""
        async with self._response("GET", path, query=query, timeout=_STREAM_TIMEOUT) as response:
            await _require_success(response, path)
            async for line in response.content:
                yield line

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        async with self._response(
            method, path, query=query or {}, body=body, content_type=content_type
        ) as response:
            await _require_success(response, path)
            return _parse(await _read(response, path), path)

    def _response(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout = _CALL_TIMEOUT,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        @asynccontextmanager
        async def opened() -> AsyncGenerator[aiohttp.ClientResponse, None]:
            try:
                method_, url, headers, body_, _ = await self._api.param_serialize(
                    method,
                    path,
                    query_params=list(query.items()),
                    header_params={"Accept": "application/json", "Content-Type": content_type},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                answer = await self._api.rest_client.request(
                    method_, url, headers=headers, body=body_, _request_timeout=timeout
                )
                async with answer.response as response:
                    yield response
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                raise KubeError(0, f"{method} {path} failed: {what}") from error

        return opened()


@asynccontextmanager
async def connect(kubeconfig: str | None = None, context: str = "") -> AsyncGenerator[KubeApi, None]:
    """Connect as the pod's service account, or outside a cluster as `kubeconfig` or KUBECONFIG says.

    Who names a `context` means one of the kubeconfig. Raises NoCluster.
    """
    configuration = kubernetes_client.Configuration()
    if context or not _configure_in_cluster(configuration):
        try:
            await kubernetes_config.load_kube_config(
                kubeconfig, context=context or None, client_configuration=configuration
            )
        except kubernetes_config.ConfigException as error:
            raise NoCluster(f"no cluster to connect to: {error}") from error
    async with kubernetes_client.ApiClient(configuration) as api:
        yield KubeApi(api)


def _configure_in_cluster(configuration: Any) -> bool:
    try:
        kubernetes_config.load_incluster_config(client_configuration=configuration)
    except kubernetes_config.ConfigException:
        return False
    return True


def current_namespace(kubeconfig: str | None = None, context: str = "") -> str:
    """Give the namespace of a context of the kubeconfig, as kubectl would take it."""
    try:
        contexts, active = kubernetes_config.list_kube_config_contexts(kubeconfig)
    except kubernetes_config.ConfigException:
        return "default"
    chosen = next((one for one in contexts if one["name"] == context), active if not context else {})
    return str((chosen.get("context") or {}).get("namespace") or "default")


async def _read(response: aiohttp.ClientResponse, path: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise KubeError(0, f"{path}: the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


async def _lines(response: aiohttp.ClientResponse, path: str) -> AsyncGenerator[bytes, None]:
    """Yield lines that are not blank; the reader of aiohttp gives up on those of a large object."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_ANSWER_BYTES:
            raise KubeError(0, f"{path}: an event is larger than {MAX_ANSWER_BYTES} bytes")
        for line in lines:
            if line.strip():
                yield line


async def _require_success(response: aiohttp.ClientResponse, path: str) -> None:
    if response.status < 300:
        return
    try:
        message = str(_parse(await _read(response, path), path).get("message", ""))
    except KubeError:
        message = ""
    raise KubeError(response.status, f"{path}: {response.status} {message or response.reason}")


def _parse(body: bytes, path: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise KubeError(0, f"{path}: the answer is not JSON") from error
    if not isinstance(document, dict):
        raise KubeError(0, f"{path}: the answer is not a JSON object")
    return document
