"""A real S3 store (Versity's gateway over a folder) on a loopback port."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cluster.tools import tool
from support.registry import free_port

ACCESS_KEY = "plant-a-reader"
SECRET_KEY = "correct/horse+battery"
REGION = "plant-a-1"
DOMAIN = "s3.plant-a.local"
"""The host name under which buckets are host names."""


@dataclass(frozen=True)
class S3Store:
    """A running store."""

    port: int
    certificate: Path | None = None

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def make_bucket(self, name: str, *, public: bool = False) -> str:
        """Make a bucket, readable by everybody if it is public, and give its name."""
        self._call(f"/{name}")
        if public:
            allow = (
                f'"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::{name}/*"'
            )
            self._call(f"/{name}?policy", f'{{"Version":"2012-10-17","Statement":[{{{allow}}}]}}'.encode())
        return name

    def put(self, bucket: str, key: str, content: bytes) -> str:
        """Store an object and give its key."""
        self._call(f"/{bucket}/{quote(key, safe='/-_.~')}", content)
        return key

    def _call(self, path: str, body: bytes = b"") -> None:
        request = AWSRequest("PUT", f"{self.endpoint}{path}", data=body)
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(request)
        connection = self._connect()
        try:
            connection.request("PUT", path, body, dict(request.headers.items()))
            answer = connection.getresponse()
            if answer.status >= 300:
                raise RuntimeError(f"PUT {path}: {answer.status} {answer.read()[:500]!r}")
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self.certificate is None:
            return http.client.HTTPConnection("127.0.0.1", self.port)
        context = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context)


@contextlib.contextmanager
def start_store(folder: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[S3Store]:
    """Run the store with its objects in `folder` until the block ends; `tls`: certificate and key.

    Builds the program first where that is necessary. Raises RuntimeError when it does not start.
    """
    port = free_port()
    buckets, facts = folder / "buckets", folder / "facts"
    buckets.mkdir(parents=True)
    facts.mkdir()
    options = ["--port", f"127.0.0.1:{port}", "--region", REGION, "--iam-dir", str(folder), "--quiet"]
    options += ["--virtual-domain", f"{DOMAIN}:{port}"]
    if tls:
        options += ["--cert", str(tls[0]), "--key", str(tls[1])]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ROOT_ACCESS_KEY": ACCESS_KEY,
        "ROOT_SECRET_KEY": SECRET_KEY,
    }
    log = folder / "store.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(tool("versitygw")), *options, "posix", "--sidecar", str(facts), str(buckets)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        _await_listening(port, process, log)
        yield S3Store(port, tls[0] if tls else None)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _await_listening(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The store ended with {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        pause.wait(0.02)
    raise RuntimeError(f"The store does not listen on port {port} after {seconds} seconds.")
