"""A file behind HTTP whose connections break, and which may change between two of them; raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

OLD = "Mon, 02 Nov 2026 10:00:00 GMT"
"""When every version of the file was written last, if the server says so: the date tells nothing apart."""


@dataclass
class BrittleFile:
    """One URL; every answer is cut off after as many bytes of its body as `cuts` says, then none is."""

    versions: tuple[bytes, ...]
    cuts: list[int] = field(default_factory=list)
    change_at: int = 10**9
    """The number of the request from which the second version is served."""
    validator: str = "etag"
    """`etag`, `weak`, `date` or `none`: what names the version."""
    ranges: bool = True
    """Whether ranges are served."""
    trusting: bool = False
    """Whether ranges are served without looking at If-Range, as some stores do."""
    asked: list[str] = field(default_factory=list)
    """The Range header of each request."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as a file server does (RFC 9110), until the connection breaks."""
        content = self.versions[-1 if len(self.asked) >= self.change_at else 0]
        self.asked.append(request.headers.get("Range", ""))
        headers = self._validators(content)
        start = self._start(request, headers)
        status = 200
        if start:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        headers["Content-Length"] = str(len(body))
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        cut = self.cuts.pop(0) if self.cuts else None
        await response.write(body[:cut])
        if cut is not None and cut < len(body):
            assert request.transport is not None
            request.transport.close()
        return response

    def _validators(self, content: bytes) -> dict[str, str]:
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        match self.validator:
            case "etag":
                return {"ETag": tag}
            case "weak":
                return {"ETag": f"W/{tag}"}
            case "date":
                return {"Last-Modified": OLD, "ETag": f"W/{tag}"}
            case _:
                return {}

    def _start(self, request: web.Request, headers: dict[str, str]) -> int:
        wanted = request.headers.get("Range", "")
        if not self.ranges or not wanted:
            return 0
        known = request.headers.get("If-Range")
        if not self.trusting and known not in {None, headers.get("ETag"), headers.get("Last-Modified")}:
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))


RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw_server(handle: RawHandler) -> AsyncIterator[str]:
    """Let the handler answer each connection on a loopback port, after the head of a request; gives a URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/m.onnx"
        listening.close()
        await asyncio.gather(*tasks)
