"""The realm of a registry that takes signed tokens: a real one, which a real registry checks by itself.

Format: the distribution project's token specification: a JWT (RFC 7519) in ES256 (RFC 7518) with the
certificate of its key in `x5c`, and what it allows in `access`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from typing_extensions import override

from edgemodel_operator.oci.auth import Credential

SERVICE = "registry"
ISSUER = "plant-a"


@dataclass
class TokenRealm:
    """Issues tokens to one user; `lifetime` (seconds) holds for those to come, `scopes` were asked for."""

    certificate: Path
    key: Path
    login: Credential
    lifetime: int = 300
    scopes: list[tuple[str, ...]] = field(default_factory=list)

    def issue(self, authorization: str | None, scopes: list[str]) -> dict[str, Any] | None:
        """Answer a request for a token; None refuses it."""
        if authorization != self.login.basic:
            return None
        self.scopes.append(tuple(scopes))
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": self.login.username,
            "aud": SERVICE,
            "nbf": now - 60,
            "iat": now,
            # The registry's own allowance for clocks that differ is a minute.
            "exp": now + self.lifetime,
            "jti": str(len(self.scopes)),
            "access": [_access(scope) for scope in scopes],
        }
        return {"token": self._sign(claims), "expires_in": self.lifetime}

    def _sign(self, claims: dict[str, Any]) -> str:
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        header = {"typ": "JWT", "alg": "ES256", "x5c": chain}
        signed = f"{_encode(header)}.{_encode(claims)}"
        key = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@contextlib.contextmanager
def serve_realm(realm: TokenRealm, port: int, tls: ssl.SSLContext) -> Iterator[str]:
    """Serve the realm on a loopback port, from a thread of its own; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
            answer = realm.issue(self.headers.get("Authorization"), scopes)
            body = json.dumps(answer or {"details": "incorrect username or password"}).encode()
            self.send_response(HTTPStatus.OK if answer else HTTPStatus.UNAUTHORIZED)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{port}/token"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _access(scope: str) -> dict[str, Any]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _encode(document: dict[str, Any]) -> str:
    return _base64url(json.dumps(document).encode())


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
