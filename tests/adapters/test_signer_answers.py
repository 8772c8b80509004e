"""Whatever stands where the signer should: the operator believes nothing that is not proved."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.remote_signer import MAX_ANSWER_BYTES, RemoteKeys, SignerAddress
from edgemodel_operator.adapters.signer_protocol import KEYS_PATH, SIGN_PATH
from edgemodel_operator.core.supply import SupplyError
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.web.certificate_keeper import _load_chain
from edgemodel_operator.web.certificates import next_material

KEY = LocalKey(ec.generate_private_key(ec.SECP256R1()))
PEM = KEY.public_key.pem.decode()
HOST = "edgemodel-signer.edgemodel-system.svc"
MATERIAL = next_material(None, HOST, datetime.now(UTC))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Announced:
    """A ConfigMap that names the authority."""

    async def get_config_map(self, namespace: str, name: str) -> dict[str, str]:
        return {"ca.crt": MATERIAL.ca_bundle.decode()}


@asynccontextmanager
async def keys_of(folder: Path, sign: Handler, keys: Handler | None = None) -> AsyncIterator[RemoteKeys]:
    """Run a server with the signer's certificate that answers as it is told."""

    async def listed(request: web.Request) -> web.Response:
        return web.json_response({"keys": [{"key": KEY.public_key.fingerprint, "pem": PEM}]})

    application = web.Application()
    application.router.add_post(SIGN_PATH, sign)
    application.router.add_get(KEYS_PATH, keys or listed)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_chain(context, MATERIAL.leaf_pem)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        token = folder / "token"
        token.write_text("token")
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as session:
            address = SignerAddress(url, HOST, "edgemodel-system", "edgemodel-signer-ca", token)
            yield RemoteKeys(Announced(), session, address)
    finally:
        await runner.cleanup()


def answering(status: int = 200, **options: Any) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, **options)

    return answer


def saying(document: object, status: int = 200) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(document, status=status)

    return answer


@pytest.mark.parametrize(
    ("sign", "says"),
    [
        (answering(text="<html>a proxy's page</html>"), "answered HTTP 200 without JSON"),
        (answering(502, text="bad gateway"), "answered HTTP 502 without JSON"),
        (answering(body=b"x" * (MAX_ANSWER_BYTES + 1)), "is larger than"),
        (answering(307, headers={"Location": "https://elsewhere.plant-a.local/"}), "answered HTTP 307"),
        (saying([]), "without JSON"),
        (saying({}), "holds no signature"),
        (saying({"signature": None}), "holds no signature"),
        (saying({"signature": "not base64!"}), "holds no signature"),
        (saying({"signature": "AAAA"}), "is not one of key sha256:"),
        (saying({"reason": "Busy", "message": "64 requests wait"}, 503), "cannot sign now: 64 requests wait"),
        (saying({}, 500), "cannot sign now: HTTP 500"),
        (
            saying({"reason": "UnknownKey", "message": "ask for the keys again"}, 404),
            "ask for the keys again",
        ),
    ],
)
async def test_what_is_no_signature_is_not_taken_for_one(tmp_path: Path, sign: Handler, says: str) -> None:
    async with keys_of(tmp_path, sign) as keys:
        (signer,) = await keys.signers()
        with pytest.raises(SupplyError, match=says) as raised:
            await signer.sign(b"message")
    assert (raised.value.reason, raised.value.needs_person) == ("SignerUnavailable", False)


@pytest.mark.parametrize("status", [400, 403, 413])
async def test_a_refusal_is_for_a_person(tmp_path: Path, status: int) -> None:
    async with keys_of(tmp_path, saying({"reason": "x", "message": "because"}, status)) as keys:
        (signer,) = await keys.signers()
        with pytest.raises(SupplyError, match="the signer refuses: because") as raised:
            await signer.sign(b"message")
    assert (raised.value.reason, raised.value.needs_person) == ("SigningRefused", True)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "names no key"),
        ({"keys": []}, "names no key"),
        ({"keys": "x"}, "names no key"),
        ({"keys": [{}]}, "cannot be understood"),
        ({"keys": [1]}, "cannot be understood"),
        ({"keys": [{"pem": 1}]}, "cannot be understood"),
        ({"keys": [{"pem": "no key"}]}, "cannot be understood"),
        ({"keys": [{"pem": PEM}, {"pem": "no key"}]}, "cannot be understood"),
    ],
)
async def test_without_every_key_there_is_none(tmp_path: Path, document: object, says: str) -> None:
    async with keys_of(tmp_path, answering(), saying(document)) as keys:
        with pytest.raises(SupplyError, match=says):
            await keys.signers()
