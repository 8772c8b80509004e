"""The operator's side of `edgemodel-signer`: keys that sign and that are never here."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from edgemodel_operator.adapters.signer_protocol import KEYS_PATH, SIGN_PATH, KeyTroubleReason
from edgemodel_operator.core.supply import SupplyError
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.signing.errors import KeyLoadError
from edgemodel_operator.signing.keys import PublicKey, Signer, load_public_key

CA_FIELD = "ca.crt"
MAX_ANSWER_BYTES = 256 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5)
"""For a message of 20 MiB on a slow link, and a turn at a busy signer."""
_REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})


class ConfigMaps(Protocol):
    """Where the signer says which certificate authority to accept."""

    async def get_config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """Read the text fields of a ConfigMap. Raises KubeError."""
        ...


@dataclass(frozen=True)
class SignerAddress:
    """Where the signer is, and how it is known."""

    url: str
    """`https://HOST[:PORT]`."""
    host: str
    """The name in its certificate, `SERVICE.NAMESPACE.svc`."""
    namespace: str
    config_map: str
    """The ConfigMap with its certificate authority."""
    token_file: Path
    """Our token for it, which the kubelet replaces before it expires."""


class RemoteKeys:
    """Asks the signer. Every method raises KubeError, and SupplyError, which at times a person must mend."""

    def __init__(
        self, config_maps: ConfigMaps, session: aiohttp.ClientSession, address: SignerAddress
    ) -> None:
        self._config_maps = config_maps
        self._session = session
        self._address = address
        self._context: ssl.SSLContext | None = None

    async def signers(self) -> tuple[Signer, ...]:
        """Give the keys that sign now: all of them, or none."""
        answer = await self._ask("GET", KEYS_PATH)
        listed = answer.get("keys")
        try:
            pems = [entry["pem"].encode() for entry in listed] if isinstance(listed, list) else []
            keys = tuple(load_public_key(pem) for pem in pems)
        except (KeyLoadError, KeyError, TypeError, AttributeError) as error:
            raise _unavailable("the signer's list of keys cannot be understood") from error
        if not keys:
            raise _unavailable("the signer names no key")
        return tuple(_RemoteKey(self, key) for key in keys)

    async def signature(self, key: PublicKey, message: bytes) -> bytes:
        """Have a message signed with one key."""
        answer = await self._ask("POST", SIGN_PATH, {"key": key.fingerprint}, message)
        try:
            signature = base64.b64decode(answer["signature"], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise _unavailable("the signer's answer holds no signature") from error
        if not key.verifies(signature, message):
            raise _unavailable(f"the signer's signature is not one of key {key.fingerprint}")
        return signature

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> dict[str, Any]:
        try:
            return await self._ask_once(method, path, query, body)
        except (aiohttp.ClientError, OSError, TimeoutError):
            # The signer may have a new certificate authority, or have closed a connection that lay idle.
            self._context = None
        try:
            return await self._ask_once(method, path, query, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise _unavailable(f"the signer at {self._address.url} cannot be asked: {what}") from error

    async def _ask_once(
        self, method: str, path: str, query: Mapping[str, str] | None, body: bytes | None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {await self._token()}"}
        async with self._session.request(
            method,
            f"{self._address.url}{path}",
            params=query,
            data=None if body is None else io.BytesIO(body),
            headers=headers,
            ssl=await self._tls(),
            server_hostname=self._address.host,
            allow_redirects=False,
            timeout=TIMEOUT,
        ) as response:
            answer = await _read(response)
            if response.status != HTTPStatus.OK:
                raise _error(response, answer)
            return answer

    async def _token(self) -> str:
        path = self._address.token_file
        try:
            return (await asyncio.to_thread(path.read_text, encoding="ascii")).strip()
        except (OSError, UnicodeDecodeError) as error:
            sentence = f"the token for the signer cannot be read from {path}: {type(error).__name__}"
            raise _unavailable(sentence) from error

    async def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            where = f"{self._address.namespace}/{self._address.config_map}"
            data = await self._config_maps.get_config_map(self._address.namespace, self._address.config_map)
            bundle = (data or {}).get(CA_FIELD, "")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            try:
                context.load_verify_locations(cadata=bundle)
            except (ssl.SSLError, ValueError) as error:
                raise _unavailable(
                    f"ConfigMap {where} does not say which certificate of the signer to accept: "
                    "does the Deployment edgemodel-signer run?"
                ) from error
            self._context = context
        return self._context


@dataclass(frozen=True)
class _RemoteKey:
    """One key of the signer."""

    keys: RemoteKeys
    public_key: PublicKey

    async def sign(self, message: bytes) -> bytes:
        return await self.keys.signature(self.public_key, message)


async def _read(response: aiohttp.ClientResponse) -> dict[str, Any]:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise _unavailable(f"the signer's answer is larger than {MAX_ANSWER_BYTES} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _unavailable(f"the signer answered HTTP {response.status} without JSON")
    return document


def _error(response: aiohttp.ClientResponse, answer: Mapping[str, Any]) -> SupplyError:
    reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
    if reason in set(KeyTroubleReason):
        return SupplyError(SupplyStep.SIGN, reason, message, needs_person=True)
    if response.status in _REFUSALS:
        sentence = f"the signer refuses: {message}"
        return SupplyError(SupplyStep.SIGN, "SigningRefused", sentence, needs_person=True)
    return _unavailable(f"the signer cannot sign now: {message or f'HTTP {response.status}'}")


def _unavailable(message: str) -> SupplyError:
    return SupplyError(SupplyStep.SIGN, "SignerUnavailable", message)
