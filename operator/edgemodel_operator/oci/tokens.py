"""Bearer tokens and Basic authentication for registries: fetched when challenged, kept while used, renewed.

Format: the distribution project's token authentication specification (`GET realm?service=…&scope=…`).
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from .auth import Challenge, Credential, may_see, parse_challenges
from .bodies import read_capped
from .errors import ProtocolError, RegistryUnavailable, Unauthorized
from .locks import KeyedLocks

_MAX_TOKEN_BYTES = 64 * 1024
_MAX_KEPT = 512
"""Whoever can have an image looked at chooses the scopes: what was not used for longest is forgotten."""
_DEFAULT_LIFETIME = 60.0
"""Seconds a token lives when the server does not say: the specification's default."""


class TokenKey(NamedTuple):
    """What one Authorization value is wanted for: a registry host, the scopes asked for, and by whom."""

    registry: str
    scopes: tuple[str, ...]
    credential: Credential | None = None


class _Basic(NamedTuple):
    """A registry that takes this user name and password as they are, whatever the scopes."""

    registry: str
    credential: Credential


class TokenBook:
    """Remembers how to authenticate to which registry for which scopes."""

    def __init__(self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> None:
        self._session = session
        self._timeout = timeout
        self._known: OrderedDict[TokenKey | _Basic, tuple[str, float]] = OrderedDict()
        self._locks = KeyedLocks()

    def known(self, key: TokenKey) -> str | None:
        """Return an Authorization value that worked before and has not expired."""
        for place in _places(key):
            value, expires = self._known.get(place, ("", 0.0))
            if expires > time.monotonic():
                self._known.move_to_end(place)
                return value
        return None

    async def answer(
        self,
        key: TokenKey,
        url: URL,
        challenge_headers: Sequence[str],
        rejected: str | None,
    ) -> str:
        """Answer a 401 with a new Authorization value; `rejected` is what was sent and refused.

        Raises Unauthorized when there is no way to satisfy the challenge.
        """
        async with self._locks.hold(key):
            current = self.known(key)
            if current is not None and current != rejected:
                return current  # another request has just renewed it
            challenges = parse_challenges(challenge_headers)
            place, value, lifetime = await self._satisfy(url, key, challenges)
            if value == rejected:
                self._known.pop(place, None)
                raise Unauthorized(f"{url.host} rejected the credentials.")
            self._keep(place, value, time.monotonic() + lifetime)
            return value

    def _keep(self, place: TokenKey | _Basic, value: str, expires: float) -> None:
        now = time.monotonic()
        for old in [one for one, (_, until) in self._known.items() if until <= now]:
            del self._known[old]
        self._known[place] = (value, expires)
        self._known.move_to_end(place)
        if len(self._known) > _MAX_KEPT:
            self._known.popitem(last=False)

    async def _satisfy(
        self, url: URL, key: TokenKey, challenges: Sequence[Challenge]
    ) -> tuple[TokenKey | _Basic, str, float]:
        """Give what the value is good for, the value, and for how many seconds."""
        by_scheme = {challenge.scheme: challenge for challenge in challenges}
        if bearer := by_scheme.get("bearer"):
            return key, *await self._fetch_token(url, key.scopes, bearer, key.credential)
        if "basic" in by_scheme:
            if key.credential is None:
                raise Unauthorized(f"{url.host} wants a user name and a password, and none are configured.")
            return _Basic(key.registry, key.credential), key.credential.basic, float("inf")
        raise Unauthorized(f"{url.host} wants an authentication scheme that we do not speak.")

    async def _fetch_token(
        self, url: URL, scopes: tuple[str, ...], bearer: Challenge, credential: Credential | None
    ) -> tuple[str, float]:
        realm = _checked_realm(url, bearer.parameters.get("realm", ""))
        if credential is not None and not may_see(credential, url.host or "", realm.host or ""):
            raise Unauthorized(
                f"{url.host} wants credentials sent to {realm.host}, which is not in its domain: if that is "
                f'right, add "tokenHosts": ["{realm.host}"] to the entry of {url.host} in the docker '
                "configuration that holds them."
            )
        query = [("scope", scope) for scope in scopes]
        if service := bearer.parameters.get("service"):
            query.insert(0, ("service", service))
        headers = {"Authorization": credential.basic} if credential else {}
        async with self._session.get(
            realm.extend_query(query), headers=headers, allow_redirects=False, timeout=self._timeout
        ) as response:
            if response.status in {400, 401, 403}:
                raise Unauthorized(f"{realm.host} gave no token for {' '.join(scopes)} ({response.status}).")
            if response.status != 200:
                raise RegistryUnavailable(f"{realm.host} gave no token: status {response.status}.")
            body = await read_capped(response, _MAX_TOKEN_BYTES)
        return _parse_token(realm, body)


def _places(key: TokenKey) -> tuple[TokenKey | _Basic, ...]:
    """Name where an Authorization value for a key may be kept."""
    return (key,) if key.credential is None else (key, _Basic(key.registry, key.credential))


def _checked_realm(url: URL, text: str) -> URL:
    """Refuse realms that would show the credentials to the wire or to a host nobody chose."""
    try:
        realm = URL(text)
    except ValueError as error:
        raise ProtocolError(f"{url.host} sent an authentication realm that is no URL.") from error
    same_plain_host = url.scheme == "http" and realm.scheme == "http" and realm.host == url.host
    if not realm.host or not (realm.scheme == "https" or same_plain_host):
        raise Unauthorized(
            f"{url.host} wants credentials sent to {realm.host or '?'} over {realm.scheme or '?'}: "
            "a token realm must be https, or on the same host as a plain-HTTP registry."
        )
    return realm


def _parse_token(realm: URL, body: bytes) -> tuple[str, float]:
    try:
        document: Any = json.loads(body)
    except ValueError as error:
        raise ProtocolError(
            f"{realm.host} answered a token request with something that is not JSON."
        ) from error
    fields = document if isinstance(document, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise ProtocolError(f"{realm.host} answered a token request without a token.")
    lifetime = fields.get("expires_in")
    seconds = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else _DEFAULT_LIFETIME
    # Renew a little early, so that a token does not expire between our check and the registry's.
    return f"Bearer {token}", seconds * 0.9
