"""What build tests need: real small models, a source server that misbehaves, requests, completeness."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from aiohttp import web
from onnx import TensorProto, helper, numpy_helper

from edgemodel_operator.api.image import ImageSpec
from edgemodel_operator.api.model import ModelFormat, ModelSpec
from edgemodel_operator.api.source import HttpSource, Source
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.settings import SourceSettings
from support.registry import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOPBACK = ("127.0.0.0/8", "::1/128")


def make_onnx(width: int = 16, *, seed: int = 1, opset: int = 17, ir_version: int = 8) -> bytes:
    """Make a model `y = x @ w` with `width` squared random weights of 4 bytes."""
    weights = np.random.default_rng(seed).random((width, width), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "multiply",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def parse_onnx(content: bytes) -> Any:
    return onnx.load_from_string(content)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class SourceServer:
    """A file server on loopback; `handlers` answer by path, `seen` lists the paths that were asked for."""

    port: int
    scheme: str = "http"
    handlers: dict[str, Handler] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def url(self, path: str = "/model.onnx") -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def serve(self, content: bytes, path: str = "/model.onnx") -> str:
        """Serve the content and give its URL."""

        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=content)

        self.handlers[path] = answer
        return self.url(path)

    def answer(self, handler: Handler, path: str = "/model.onnx") -> str:
        """Let the handler answer and give the URL."""
        self.handlers[path] = handler
        return self.url(path)


@contextlib.asynccontextmanager
async def source_server(context: ssl.SSLContext | None = None) -> AsyncIterator[SourceServer]:
    """Run a source server in this event loop."""
    server = SourceServer(free_port(), "https" if context else "http")

    async def dispatch(request: web.Request) -> web.StreamResponse:
        server.seen.append(request.path)
        handler = server.handlers.get(request.path)
        return await handler(request) if handler else web.Response(status=404)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", dispatch)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", server.port, ssl_context=context).start()
    try:
        yield server
    finally:
        await runner.cleanup()


async def hang(request: web.Request) -> web.StreamResponse:
    """Send the head and one byte of a long body, then nothing until the client goes away."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x")
    await asyncio.Event().wait()
    return response


def make_request(url: str, content: bytes, *, runtime: str, repository: str, **changes: Any) -> BuildRequest:
    """Make a request for a model on a loopback server, between registries without TLS."""
    source = Source(http=HttpSource(url=url, sha256=sha256(content), insecure=True))
    model = ModelSpec(format=ModelFormat.ONNX, source=source, version="7")
    hosts = {runtime.partition("/")[0], repository.partition("/")[0]}
    fields: dict[str, Any] = {
        "model_name": "line-orientation",
        "model": model,
        "runtime": runtime,
        "image": ImageSpec(repository=repository),
        "plain_http": tuple(sorted(hosts)),
        "source_limits": SourceSettings(allowed_networks=LOOPBACK),
    }
    return BuildRequest(**{**fields, **changes})


def with_image(request: BuildRequest, **changes: Any) -> BuildRequest:
    """Give the request with another image: its repository, platforms, …"""
    return request.model_copy(update={"image": request.image.model_copy(update=changes)})


async def missing_parts(client: RegistryClient, index: Reference) -> list[str]:
    """Read an index as a node would and list every manifest and blob that is not there."""
    missing: list[str] = []
    for child in parse_index((await client.get_manifest(index)).body).manifests:
        reference = index.with_digest(child.digest)
        if await client.head_manifest(reference) is None:
            missing.append(child.digest)
            continue
        image = parse_manifest((await client.get_manifest(reference)).body)
        missing += [
            blob.digest
            for blob in (image.config, *image.layers)
            if not await client.blob_exists(reference, blob.digest)
        ]
    return missing
