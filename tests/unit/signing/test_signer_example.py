"""The program on docs/signer.md signs through a key service, as it stands there."""

from __future__ import annotations

import base64
import json
import re
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from edgemodel_operator.signing.command_signer import CommandSigner
from edgemodel_operator.signing.errors import SignerFailed
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.web.certificates import next_material

PAGE = (Path(__file__).parents[3] / "docs/signer.md").read_text(encoding="utf-8")
PRIVATE = ec.generate_private_key(ec.SECP256R1())
TOKEN = "hvs.from-a-test"


class KeyService(BaseHTTPRequestHandler):
    """Answers as the transit engine does."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_allowed = self.headers["X-Vault-Token"] == TOKEN and self.path.endswith("/sign/images/sha2-256")
        self.send_response(200 if is_allowed and asked["prehashed"] else 403)
        self.end_headers()
        signature = PRIVATE.sign(base64.b64decode(asked["input"]), ec.ECDSA(Prehashed(hashes.SHA256())))
        answer = {"data": {"signature": f"vault:v1:{base64.b64encode(signature).decode()}"}}
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


@dataclass(frozen=True)
class Desk:
    """The program of the page, set to a service of this test."""

    program: Path
    token: Path

    @property
    def signer(self) -> CommandSigner:
        return CommandSigner([sys.executable, str(self.program)], LocalKey(PRIVATE).public_key)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    material = next_material(None, "localhost", datetime.now(UTC))
    chain, authority, token = (tmp_path / name for name in ("chain.pem", "ca.crt", "token"))
    chain.write_bytes(material.leaf_pem)
    authority.write_bytes(material.ca_bundle)
    token.write_text(f"{TOKEN}\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with HTTPServer(("localhost", 0), KeyService) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        program = tmp_path / "sign.py"
        program.write_text(
            _program()
            .replace("vault.plant-a.local:8200", f"localhost:{server.server_port}")
            .replace("/etc/vault/token", str(token))
            .replace("/etc/vault/ca.crt", str(authority))
        )
        yield Desk(program, token)
        server.shutdown()


def _program() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


async def test_its_signature_is_one_of_the_key(desk: Desk) -> None:
    signature = await desk.signer.sign(b"message")
    PRIVATE.public_key().verify(signature, b"message", ec.ECDSA(hashes.SHA256()))


async def test_it_says_why_it_fails(desk: Desk) -> None:
    desk.token.write_text("another")
    with pytest.raises(SignerFailed, match="the key service did not sign: HTTP Error 403"):
        await desk.signer.sign(b"message")
