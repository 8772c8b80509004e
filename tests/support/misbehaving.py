"""Servers in a plant that do what servers should not do."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from typing_extensions import override

NO_MODEL = b"These bytes are no model."


@dataclass
class Seen:
    """What was asked of a server; `closing` lets the silent answer end."""

    paths: Counter[str] = field(default_factory=Counter)
    closing: threading.Event = field(default_factory=threading.Event)


class Misbehaving(BaseHTTPRequestHandler):
    """A file server that does what file servers should not do."""

    def __init__(self, seen: Seen, *arguments: Any) -> None:
        self.seen = seen
        super().__init__(*arguments)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""

    def do_GET(self) -> None:
        """Answer by path."""
        self.seen.paths[self.path] += 1
        match self.path:
            case "/silent.onnx":
                self.seen.closing.wait()
            case "/to-metadata.onnx":
                self._answer(302, Location="http://169.254.169.254/latest/meta-data/")
            case "/to-loopback.onnx":
                self._answer(302, Location="http://127.0.0.1:8080/metrics")
            case "/announced.onnx":
                self._answer(200, Content_Length=str(65 * 1024**2))
            case "/endless.onnx":
                self._answer(200)
                self._pour()
            case "/text.onnx":
                self._answer(200, Content_Length=str(len(NO_MODEL)))
                self.wfile.write(NO_MODEL)
            case _:
                self._answer(404, Content_Length="0")

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _pour(self) -> None:
        chunk = bytes(1024**2)
        try:
            while not self.seen.closing.is_set():
                self.wfile.write(chunk)
        except OSError:
            return


class RefusingRegistry(BaseHTTPRequestHandler):
    """A registry that holds nothing and takes nothing."""

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""

    def _refuse(self, status: int, code: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": "no"}]}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        """Have no manifest."""
        self._refuse(404, "MANIFEST_UNKNOWN")

    def do_HEAD(self) -> None:
        """Have no blob."""
        self._refuse(404, "BLOB_UNKNOWN")

    def do_POST(self) -> None:
        """Take no upload."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._refuse(403, "DENIED")
