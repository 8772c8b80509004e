"""Sending registry requests: authentication, retries, time limits and safe redirects.

This is the only module that hands credentials to the network. Its rules:

1. Plain HTTP is spoken only to registries the caller named; everything else is HTTPS.
2. A bearer realm gets credentials only over HTTPS, or when it is on the same host as a plain-HTTP registry.
3. An Authorization header goes to the registry's own origin alone: no redirect and no upload location takes
   it elsewhere, and none brings it back. HTTPS never redirects to HTTP.
4. A rejected token is thrown away and fetched anew once; after that the answer counts.
5. 408, 429, 5xx and broken connections are retried with growing, jittered pauses; `Retry-After` is respected.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp
from yarl import URL

from .auth import Credential, find_credential
from .bodies import read_capped
from .errors import (
    DeletionForbidden,
    NotFound,
    ProtocolError,
    RegistryError,
    RegistryUnavailable,
    TooLarge,
    Unauthorized,
)
from .reference import Reference
from .tokens import TokenBook, TokenKey

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_REDIRECTS = 5
_EXCERPT_BYTES = 4096
# A whole body must arrive at this pace (bytes per second, after a grace time): a dripping one is a failure.
_SLOWEST_RATE = 8192
_SLOWEST_SECONDS = 30
# All headers must be there by then, however they drip. It begins while the request still waits for one of the
# connections to its host, which may be busy with large blobs for a while; what is sent has the pace above.
_HEADERS_SECONDS = 600.0
_ERROR_CODE = re.compile(rb'"code"\s*:\s*"([A-Z_]{1,40})"')

Body = Callable[[], bytes | AsyncIterable[bytes]]
"""Makes the request body anew for each attempt."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently to repeat a failed request; times in seconds."""

    attempts: int = 5
    first_pause: float = 0.25
    longest_pause: float = 10.0
    longest_retry_after: float = 60.0

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Return the seconds to wait after the given failed attempt (1, 2, …)."""
        if retry_after is not None:
            return min(retry_after, self.longest_retry_after)
        ceiling = min(self.longest_pause, self.first_pause * 2 ** (attempt - 1))
        # Full jitter: many edge sites that lost one registry must not come back in step. Not a secret.
        return random.uniform(ceiling / 4, ceiling)  # noqa: S311


@dataclass(frozen=True)
class Request:
    """One request to a registry; `scopes` are what a bearer token must allow."""

    method: str
    url: URL
    reference: Reference
    scopes: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: Body | None = None
    size: int | None = None


class Answer(NamedTuple):
    """A response read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def new_session(*, authorities: str = "", trust_env: bool = False) -> aiohttp.ClientSession:
    """Open an HTTP session fit for registries: verified TLS, no cookies, no transparent decompression.

    `authorities` are certificates (PEM) to trust besides the system's, for a site's own registry;
    `trust_env` honors the proxy variables. The caller closes it.
    """
    context = ssl.create_default_context()
    if authorities:
        context.load_verify_locations(cadata=authorities)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit_per_host=8, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=trust_env,
        headers={"User-Agent": "edgemodel-operator"},
    )


class Transport:
    """Sends requests by the rules above."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        credentials: Mapping[str, Credential],
        plain_http: Collection[str],
        retry: RetryPolicy,
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        self._session = session
        self._credentials = dict(credentials)
        self._plain_http = frozenset(plain_http)
        self._retry = retry
        self._timeout = timeout
        self._tokens = TokenBook(session, timeout)

    def url(self, reference: Reference, path: str) -> URL:
        """Return the address of `path` (already encoded) below the reference's repository."""
        scheme = "http" if reference.registry in self._plain_http else "https"
        return URL(f"{scheme}://{reference.registry}/v2/{reference.repository}/{path}", encoded=True)

    @asynccontextmanager
    async def open(self, request: Request, accept: Collection[int]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request until it has one of the accepted statuses and yield the open response.

        Raises the error that fits any other final answer. A failure while the caller reads the body is the
        caller's: only it knows how much was consumed.
        """
        response = await self._send_with_retries(request, accept)
        try:
            yield response
        finally:
            # A response that was not read to its end would poison the pooled connection.
            response.close()

    async def read(self, request: Request, accept: Collection[int], *, max_bytes: int) -> Answer:
        """Send the request and read the whole body, at most `max_bytes`; broken reads are retried too."""
        for attempt in range(1, self._retry.attempts + 1):
            async with self.open(request, accept) as response:
                try:
                    return await _read(response, max_bytes)
                except (aiohttp.ClientError, TimeoutError) as error:
                    failure = RegistryUnavailable(f"{_label(request)}: the answer broke off ({_why(error)}).")
            await self.wait_before(attempt + 1, failure)
        raise AssertionError("wait_before raises when attempts are used up")

    async def read_once(self, request: Request, accept: Collection[int], *, max_bytes: int) -> Answer:
        """Send the request once (twice if a token had expired) and read the whole body.

        For requests that change state at the other side, which only the caller knows how to repeat.
        """
        try:
            response = await self._send_authorized(request)
            async with response:
                if response.status not in accept:
                    raise await _error_of(request, response)
                return await _read(response, max_bytes)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _connection_failure(request, error) from error

    async def wait_before(self, attempt: int, failure: RegistryError) -> None:
        """Pause before the given attempt, as long as the failure asks for; raise it when none is left."""
        if attempt > self._retry.attempts:
            raise failure
        retry_after = failure.retry_after if isinstance(failure, RegistryUnavailable) else None
        await asyncio.sleep(self._retry.pause(attempt - 1, retry_after))

    async def _send_with_retries(self, request: Request, accept: Collection[int]) -> aiohttp.ClientResponse:
        for attempt in range(1, self._retry.attempts + 1):
            failure: RegistryError
            try:
                response = await self._send_authorized(request)
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = _connection_failure(request, error)
                if not failure.retryable:
                    raise failure from error
            except RegistryUnavailable as error:  # the token server's answer
                failure = error
            else:
                if response.status in accept:
                    return response
                failure = await _error_of(request, response)
                if not failure.retryable:
                    raise failure
            await self.wait_before(attempt + 1, failure)
        raise AssertionError("wait_before raises when attempts are used up")

    async def _send_authorized(self, request: Request) -> aiohttp.ClientResponse:
        registry = request.reference.registry
        home = self.url(request.reference, "").origin()
        credential = find_credential(self._credentials, registry, request.reference.repository)
        key = TokenKey(registry, request.scopes, credential)
        known = self._tokens.known(key) if request.url.origin() == home else None
        response = await self._send_following(request, known)
        if response.status != 401 or response.url.origin() != home or request.url.origin() != home:
            return response  # a storage back end has no say in where credentials go
        challenges = response.headers.getall("WWW-Authenticate", [])
        await _finish(response)
        authorization = await self._tokens.answer(key, request.url, challenges, known)
        return await self._send_following(request, authorization)

    async def _send_following(self, request: Request, authorization: str | None) -> aiohttp.ClientResponse:
        url, headers = request.url, {"Accept-Encoding": "identity", **request.headers}
        if request.size is not None:
            headers["Content-Length"] = str(request.size)
        if authorization:
            headers["Authorization"] = authorization
        for _ in range(_MAX_REDIRECTS + 1):
            async with asyncio.timeout(_HEADERS_SECONDS + (request.size or 0) / _SLOWEST_RATE):
                response = await self._session.request(
                    request.method,
                    url,
                    headers=headers,
                    data=request.body() if request.body else None,
                    allow_redirects=False,
                    timeout=self._timeout,
                )
            if response.status not in _REDIRECTS or request.method not in {"GET", "HEAD"}:
                return response
            target = _redirect_target(request, url, response)
            if target.origin() != url.origin():
                headers.pop("Authorization", None)
            url = target
            await _finish(response)
        raise ProtocolError(f"{_label(request)}: more than {_MAX_REDIRECTS} redirects.")


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> Answer:
    async with asyncio.timeout(_SLOWEST_SECONDS + max_bytes / _SLOWEST_RATE):
        return Answer(response.status, response.headers, await read_capped(response, max_bytes))


def _redirect_target(request: Request, url: URL, response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location")
    if not location:
        raise ProtocolError(f"{_label(request)}: a redirect without Location.")
    target = url.join(URL(location))
    if target.scheme not in {"http", "https"} or (url.scheme == "https" and target.scheme != "https"):
        raise ProtocolError(f"{_label(request)}: refused a redirect from {url.scheme} to {target.scheme}.")
    return target


async def _error_of(request: Request, response: aiohttp.ClientResponse) -> RegistryError:
    status = response.status
    said = await _excerpt(response)
    message = f"{_label(request)}: status {status}{said}."
    if status in {401, 403}:
        return Unauthorized(message)
    if status == 404:
        return NotFound(message)
    if status in _TRANSIENT:
        return RegistryUnavailable(message, retry_after=_retry_after(response))
    if request.method == "DELETE" and status in {405, 501}:
        return DeletionForbidden(message)
    return ProtocolError(message)


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """Quote the error code of a distribution error document; the rest of a body may hold anything."""
    codes = _ERROR_CODE.findall(await _finish(response))
    return f" ({', '.join(code.decode() for code in dict.fromkeys(codes))})" if codes else ""


async def _finish(response: aiohttp.ClientResponse) -> bytes:
    """Read a small body that nobody needs to its end, so that the connection can be used again."""
    try:
        return await read_capped(response, _EXCERPT_BYTES)
    except (aiohttp.ClientError, TimeoutError, TooLarge):
        return b""
    finally:
        response.close()  # a connection that still has something to say


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    return parse_retry_after(response.headers.get("Retry-After", ""), datetime.now(UTC))


def parse_retry_after(text: str, now: datetime) -> float | None:
    """Give the seconds that a `Retry-After` (RFC 9110, 10.2.3) asks for: a number of them, or a date."""
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 7 else None
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def _label(request: Request) -> str:
    # The query may hold upload state or signatures of storage back ends: leave it out.
    return f"{request.method} {request.url.host_port_subcomponent}{request.url.path}"


def _connection_failure(request: Request, error: Exception) -> RegistryError:
    if isinstance(error, aiohttp.ClientSSLError):
        # Waiting helps neither against a certificate that we do not trust nor against a port without TLS.
        return RegistryError(
            f"{_label(request)}: no trusted TLS connection. If the registry has a certificate of your own "
            "authority, give us its CA; if it speaks plain HTTP, it must be listed as such."
        )
    return RegistryUnavailable(f"{_label(request)}: {_why(error)}.")


def _why(error: BaseException) -> str:
    return "timed out" if isinstance(error, TimeoutError) else f"connection failed, {type(error).__name__}"
