"""What the access log says of a request over HTTP."""

import asyncio
from time import monotonic

from edgemodel_server.access_log import AccessLog, Entry
from edgemodel_server.http.messages import Request, Response
from edgemodel_server.http.targets import strip_target
from edgemodel_server.trace import read_trace

CLIENT_GONE = Response(499)
"""What the log says of a request whose client left before the answer; it is never sent."""


def log_response(
    log: AccessLog, request: Request, response: Response, transport: asyncio.Transport | None
) -> None:
    """Log a request with its response, if the log wants it; ``transport`` is None when the client left."""
    if not log.wants(failed=response.status >= 400):
        return
    entry = Entry(
        protocol="http/1.0" if request.http_1_0 else "http/1.1",
        method=request.method.decode("latin-1"),
        path=strip_target(request.path) if request.path else "",
        status=response.status,
        received=request.size,
        sent=0 if request.method == b"HEAD" else response.size,
        seconds=monotonic() - request.received,
        peer=format_peer(transport),
        trace=read_trace(request.headers),
        work=request.work,
    )
    log.write(entry)


def format_peer(transport: asyncio.BaseTransport | None) -> str:
    """Return the client's address as host:port, an IPv6 one in brackets; "" where it is not known."""
    address = None if transport is None else transport.get_extra_info("peername")
    if not address:
        return ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
