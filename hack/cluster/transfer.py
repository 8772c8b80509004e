"""One HTTP request with limits, and a file server: both in the network of the calling thread."""

from __future__ import annotations

import functools
import http.client
import http.server
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

from typing_extensions import override

from cluster.base import MAX_BODY_BYTES

Handler = Callable[..., http.server.BaseHTTPRequestHandler]
"""Makes the object that answers one connection."""


def request(
    url: str, timeout: float, data: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Send one request (a POST when there is `data`) and return status and body, whatever the status is.

    Redirects are not followed. Raises OSError when there is no answer or when the body is larger than 64 MiB.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is not an http:// address")
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)
    try:
        connection.request(
            "POST" if data is not None else "GET", target, body=data, headers=dict(headers or {})
        )
        response = connection.getresponse()
        body = response.read(MAX_BODY_BYTES + 1)
    except http.client.HTTPException as broken:
        raise ConnectionError(f"{url}: {broken!r}") from broken
    finally:
        connection.close()
    if len(body) > MAX_BODY_BYTES:
        raise OSError(f"{url} answers with more than {MAX_BODY_BYTES} bytes")
    return response.status, body


class Server(http.server.ThreadingHTTPServer):
    """Answers by a handler. Its socket belongs to the network of the thread that makes it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: Handler, host: str, port: int = 0) -> None:
        super().__init__((host, port), handler)

    @property
    def url(self) -> str:
        """The address, without a path."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"


class FileServer(Server):
    """Serves one folder, read-only."""

    def __init__(self, directory: Path, host: str) -> None:
        super().__init__(functools.partial(_QuietHandler, directory=str(directory)), host)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: tests assert on what was fetched, not on a log."""
