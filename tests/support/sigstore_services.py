"""Real keyless services on loopback ports: Fulcio, Rekor (v2, on tiles) and a timestamp authority.

Two things around them are stood in for, each by a small server with real keys: the login service whose tokens
Fulcio checks, and the certificate log, which signs that it saw a certificate and keeps nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from typing_extensions import override

from cluster.tools import tool
from support.registry import free_port
from support.sigstore_site import Log, b64, new_key, stamp

LOG_ORIGIN = "127.0.0.1"
"""As cosign wants it: the host of the log's address, whatever its port."""
AUDIENCE = "sigstore"
CA_PASSWORD = "from a test"

POISON = bytes.fromhex("060a2b06010401d679020403")
"""Where the extension 1.3.6.1.4.1.11129.2.4.3 begins, in DER."""

Answer = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class LoginService:
    """Issues identity tokens, as a CI system does for each of its jobs."""

    url: str
    key: rsa.RSAPrivateKey = field(repr=False)

    @property
    def subject(self) -> str:
        """Name the job that tokens are for."""
        return f"{self.url}/models/press/build"

    def token(self, **claims: object) -> str:
        """Issue a token for the job, valid for ten minutes, with other claims where given."""
        now = datetime.now(UTC)
        usual = {
            "iss": self.url,
            "sub": self.subject,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + timedelta(minutes=10),
        }
        return jwt.encode(usual | claims, self.key, algorithm="RS256", headers={"kid": "1"})


@dataclass(frozen=True)
class KeylessServices:
    """Everything that keyless signing needs, running; `folder` holds what a site would publish about it."""

    folder: Path
    login: LoginService
    fulcio: str
    rekor: str
    tsa: str

    @property
    def trusted_root(self) -> bytes:
        """Return the trusted root, as `cosign trusted-root create` wrote it."""
        return (self.folder / "trusted_root.json").read_bytes()

    @property
    def signing_config(self) -> bytes:
        """Return where the services are, as `cosign signing-config create` wrote it."""
        return (self.folder / "signing_config.json").read_bytes()

    @property
    def trust_config(self) -> bytes:
        """Return both in one document: the client trust config of the Sigstore libraries."""
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": json.loads(self.trusted_root),
                "signingConfig": json.loads(self.signing_config),
            }
        ).encode()


@contextlib.contextmanager
def keyless_services(folder: Path) -> Iterator[KeylessServices]:
    """Run everything until the block ends. Builds the programs first where that is necessary."""
    with contextlib.ExitStack() as running:
        login = running.enter_context(_login_service())
        log = Log()
        ctlog = running.enter_context(_certificate_log(log))
        fulcio = running.enter_context(_fulcio(folder, login.url, ctlog))
        rekor = running.enter_context(_rekor(folder))
        tsa = running.enter_context(_timestamp_authority(folder))
        services = KeylessServices(folder, login, fulcio, rekor, tsa)
        _write_pem(folder / "ctlog.pub", log.key.public_key())
        _publish(services, ctlog)
        yield services


def _publish(services: KeylessServices, ctlog: str) -> None:
    """Describe the services to clients with the real cosign, as an administrator would."""
    since = stamp(datetime.now(UTC) - timedelta(hours=1))
    start = f"start-time={since}"
    named = f"api-version=1,{start},operator=plant-a.local"
    _cosign(
        services.folder,
        *("trusted-root", "create", "--out", "trusted_root.json"),
        *("--fulcio", f"url={services.fulcio},certificate-chain=ca.pem,{start}"),
        *("--ctfe", f"url={ctlog},public-key=ctlog.pub,{start}"),
        *("--rekor", f"url={services.rekor},public-key=rekor.pub,origin={LOG_ORIGIN},{start}"),
        *("--tsa", f"url={services.tsa},certificate-chain=tsa.pem,{start}"),
    )
    _cosign(
        services.folder,
        *("signing-config", "create", "--out", "signing_config.json"),
        *("--fulcio", f"url={services.fulcio},{named}"),
        *("--rekor", f"url={services.rekor},{named.replace('version=1', 'version=2')}"),
        *("--tsa", f"url={services.tsa},{named}"),
        *("--oidc-provider", f"url={services.login.url},{named}"),
        *("--rekor-config", "EXACT:1", "--tsa-config", "EXACT:1"),
    )


def _cosign(folder: Path, *arguments: str) -> None:
    ran = subprocess.run(
        [str(tool("cosign-v3")), *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"cosign {arguments}: {ran.stdout}{ran.stderr}")


@contextlib.contextmanager
def _fulcio(folder: Path, issuer: str, ctlog: str) -> Iterator[str]:
    key = new_key()
    certificate = _self_signed(key)
    encoding = serialization.Encoding.PEM
    sealed = serialization.BestAvailableEncryption(CA_PASSWORD.encode())
    (folder / "ca.key").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, sealed))
    (folder / "ca.pem").write_bytes(certificate.public_bytes(encoding))
    # As YAML proper: Fulcio takes JSON for its older format, whose members have other names.
    (folder / "fulcio.yaml").write_text(
        f"oidc-issuers:\n  {issuer}:\n    issuer-url: {issuer}\n    client-id: {AUDIENCE}\n    type: uri\n"
        f"    subject-domain: {issuer}\n    contact: ci@plant-a.local\n    description: the CI of plant A\n"
    )
    port, grpc, metrics = free_port(), free_port(), free_port()
    command = [
        *(str(tool("fulcio")), "serve", "--host=127.0.0.1", f"--port={port}"),
        *("--grpc-host=127.0.0.1", f"--grpc-port={grpc}", f"--metrics-port={metrics}"),
        "--legacy-unix-domain-socket=fulcio.sock",
        *("--ca=fileca", "--fileca-cert=ca.pem", "--fileca-key=ca.key"),
        *(f"--fileca-key-passwd={CA_PASSWORD}", "--fileca-watch=false"),
        *(f"--ct-log-url={ctlog}", "--config-path=fulcio.yaml"),
    ]
    url = f"http://127.0.0.1:{port}"
    with _running(folder, "fulcio", command, f"{url}/api/v2/configuration"):
        yield url


@contextlib.contextmanager
def _rekor(folder: Path) -> Iterator[str]:
    key = ed25519.Ed25519PrivateKey.generate()
    (folder / "rekor.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    _write_pem(folder / "rekor.pub", key.public_key())
    port, grpc, metrics = free_port(), free_port(), free_port()
    command = [
        *(str(tool("rekor-tiles")), "serve", f"--hostname={LOG_ORIGIN}", "--storage-dir=log"),
        *(f"--http-port={port}", f"--grpc-port={grpc}", f"--http-metrics-port={metrics}"),
        *("--signer-filepath=rekor.key", "--checkpoint-interval=200ms", "--batch-max-age=50ms"),
    ]
    url = f"http://127.0.0.1:{port}"
    with _running(folder, "rekor", command, f"{url}/healthz"):
        yield url


@contextlib.contextmanager
def _timestamp_authority(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [
        *(str(tool("timestamp-authority")), "serve", "--host=127.0.0.1", f"--port={port}"),
        *("--timestamp-signer=memory", "--disable-ntp-monitoring"),
    ]
    url = f"http://127.0.0.1:{port}/api/v1/timestamp"
    with _running(folder, "tsa", command, f"{url}/certchain"):
        (folder / "tsa.pem").write_bytes(_get(f"{url}/certchain"))
        yield url


@contextlib.contextmanager
def _running(folder: Path, name: str, command: list[str], ready: str) -> Iterator[None]:
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
    try:
        _await(ready, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            _get(url)
            return
        pause.wait(0.02)
    raise RuntimeError(f"{log.stem} does not answer at {url}: {log.read_text()[-2000:]}")


def _get(url: str) -> bytes:
    answer = requests.get(url, timeout=5)
    answer.raise_for_status()
    return answer.content


@contextlib.contextmanager
def _login_service() -> Iterator[LoginService]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    with _serving() as (url, answers):
        answers["/.well-known/openid-configuration"] = lambda _: {
            "issuer": url,
            "jwks_uri": f"{url}/keys",
            "authorization_endpoint": f"{url}/auth",
            "token_endpoint": f"{url}/token",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        answers["/keys"] = lambda _: {"keys": [public | {"kid": "1", "use": "sig", "alg": "RS256"}]}
        yield LoginService(url, key)


@contextlib.contextmanager
def _certificate_log(log: Log) -> Iterator[str]:
    def add(asked: dict[str, Any]) -> object:
        chain = [x509.load_der_x509_certificate(base64.b64decode(one)) for one in asked["chain"]]
        now = datetime.now(UTC).replace(microsecond=0)
        sct = log.sct(_without_poison(chain[0].tbs_certificate_bytes), chain[1], now)
        return {
            "sct_version": 0,
            "id": b64(log.id),
            "timestamp": int(now.timestamp() * 1000),
            "extensions": "",
            "signature": b64(sct[43:]),
        }

    with _serving() as (url, answers):
        answers["/ct/v1/add-pre-chain"] = add
        yield url


def _without_poison(precertificate: bytes) -> bytes:
    """Take out the extension that keeps a precertificate from being used (RFC 6962, 3.1); all DER."""
    fields = list(_parts(next(_parts(precertificate))[1]))
    tag, wrapped = fields[-1]
    extensions = list(_parts(next(_parts(wrapped))[1]))
    kept = b"".join(_tlv(kind, content) for kind, content in extensions if POISON not in content)
    fields[-1] = (tag, _tlv(0x30, kept))
    return _tlv(0x30, b"".join(_tlv(kind, content) for kind, content in fields))


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= 0x80:
            more = length - 0x80
            length, at = int.from_bytes(der[at : at + more]), at + more
        yield tag, der[at : at + length]
        at += length


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 + len(size)]) + size + content


@contextlib.contextmanager
def _serving() -> Iterator[tuple[str, dict[str, Answer]]]:
    """Answer JSON on a loopback port: by path, from what was posted."""
    answers: dict[str, Answer] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            self._answer(json.loads(self.rfile.read(length) or b"{}"))

        def do_GET(self) -> None:
            self._answer({})

        def _answer(self, asked: dict[str, Any]) -> None:
            answer = answers.get(self.path)
            body = json.dumps(answer(asked)).encode() if answer else b""
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.now(UTC)
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "plant-a.local"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "keyless"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=2))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write_pem(path: Path, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> None:
    path.write_bytes(
        key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
