"""Model files behind HTTP(S) URLs.

Redirects are followed by hand, so that each step is held against the same rules: https stays https, the
address of every connection passes the guard, and no credentials exist that could leak.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from edgemodel_operator.api.source import HttpFile
from edgemodel_operator.build.addresses import ForbiddenAddress, guarded_session
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.sources.download import Allowance, FetchedFile, check_digest, save

MAX_REDIRECTS = 5
CHUNK_BYTES = 256 * 1024

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429})


async def fetch_http(
    source: HttpFile, destination: Path, allowance: Allowance, *, insecure: bool
) -> FetchedFile:
    """Download the file to `destination`, check its SHA-256, and describe it. Raises BuildError.

    `insecure` allows plain http, also after a redirect.
    """
    try:
        async with asyncio.timeout(allowance.total_seconds):
            file = await _download(URL(source.url), destination, allowance, insecure=insecure)
    except TimeoutError as error:
        raise fail(
            Reason.SOURCE_TIMEOUT,
            f"{_shown(URL(source.url))} was not complete after {allowance.total_seconds:g} seconds.",
        ) from error
    return check_digest(file, source.sha256)


async def _download(begun_at: URL, destination: Path, allowance: Allowance, *, insecure: bool) -> FetchedFile:
    url = begun_at
    async with guarded_session(allowance.policy) as session:
        for _ in range(MAX_REDIRECTS + 1):
            _check_scheme(url, insecure=insecure)
            async with _get(session, url, allowance) as response:
                if response.status not in _REDIRECTS:
                    return await _receive(response, destination, allowance)
                url = _next_url(url, response)
    raise fail(Reason.SOURCE_UNAVAILABLE, f"{_shown(begun_at)} redirects more than {MAX_REDIRECTS} times.")


@asynccontextmanager
async def _get(
    session: aiohttp.ClientSession, url: URL, allowance: Allowance
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Open the response and put every failure of connecting and reading into words."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=allowance.idle_seconds)
    headers = {"Accept-Encoding": "identity"}
    try:
        async with session.get(url, allow_redirects=False, timeout=timeout, headers=headers) as response:
            yield response
    except ForbiddenAddress as error:
        raise fail(Reason.SOURCE_FORBIDDEN_ADDRESS, f"{_shown(url)} is refused: {error}.") from error
    except aiohttp.InvalidURL as error:
        raise fail(Reason.SOURCE_FORBIDDEN_ADDRESS, f"{_shown(url)} names no plain address.") from error
    except aiohttp.ConnectionTimeoutError as error:
        raise fail(Reason.SOURCE_TIMEOUT, f"{_shown(url)} did not accept a connection in time.") from error
    except aiohttp.ServerTimeoutError as error:
        raise fail(
            Reason.SOURCE_TIMEOUT, f"{_shown(url)} sent nothing for {allowance.idle_seconds:g} seconds."
        ) from error
    except aiohttp.ClientError as error:
        raise _client_failure(url, error) from error


def _client_failure(url: URL, error: aiohttp.ClientError) -> BuildError:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return fail(Reason.SOURCE_UNAVAILABLE, f"The host name {url.host} cannot be resolved.")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
        return fail(
            Reason.SOURCE_TLS_FAILED, f"The certificate of {url.host} is not trusted: {why.rstrip('.')}."
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return fail(Reason.SOURCE_TLS_FAILED, f"{url.host} does not speak TLS as we need it.")
    if isinstance(error, aiohttp.ClientResponseError):
        return fail(Reason.SOURCE_UNAVAILABLE, f"{_shown(url)} does not answer as an HTTP server should.")
    if isinstance(error, aiohttp.ClientPayloadError):
        return fail(Reason.SOURCE_UNAVAILABLE, f"{_shown(url)} broke off in the middle of the file.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return fail(
            Reason.SOURCE_UNAVAILABLE,
            f"{url.host} cannot be reached: {error.strerror or type(error).__name__}.",
        )
    return fail(Reason.SOURCE_UNAVAILABLE, f"{_shown(url)} failed: {type(error).__name__}.")


async def _receive(response: aiohttp.ClientResponse, destination: Path, allowance: Allowance) -> FetchedFile:
    if response.status != 200:
        raise _status_failure(response)
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise fail(
            Reason.SOURCE_UNAVAILABLE,
            f"{_shown(response.url)} is sent with Content-Encoding {encoding[:32]}, which was not asked for.",
        )
    chunks = response.content.iter_chunked(CHUNK_BYTES)
    return await save(chunks, destination, response.content_length, allowance)


def _status_failure(response: aiohttp.ClientResponse) -> BuildError:
    where, status = _shown(response.url), response.status
    if status in {404, 410}:
        return fail(Reason.SOURCE_NOT_FOUND, f"{where} does not exist (status {status}).")
    if status in {401, 403}:
        return fail(Reason.SOURCE_DENIED, f"{where} wants credentials, or refuses us (status {status}).")
    wait = response.headers.get("Retry-After", "")
    patient = status in _TRANSIENT or status >= 500
    retry_after = float(wait) if patient and wait.isascii() and wait.isdigit() and len(wait) < 6 else None
    return fail(Reason.SOURCE_UNAVAILABLE, f"{where} answered with status {status}.", retry_after=retry_after)


def _next_url(url: URL, response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location", "")
    try:
        target = url.join(URL(location))
    except ValueError as error:
        raise fail(
            Reason.SOURCE_UNAVAILABLE, f"{_shown(url)} redirects to something that is no URL."
        ) from error
    if not location or not target.host:
        raise fail(Reason.SOURCE_UNAVAILABLE, f"{_shown(url)} redirects to nowhere.")
    return target.with_user(None) if target.user or target.password else target


def _check_scheme(url: URL, *, insecure: bool) -> None:
    if url.scheme == "https" or (insecure and url.scheme == "http"):
        return
    raise fail(
        Reason.SOURCE_FORBIDDEN_ADDRESS,
        f"{_shown(url)} is refused: only https is allowed; for plain http set `insecure: true`.",
    )


def _shown(url: URL) -> str:
    """Give the URL as it may be shown: the query can hold a signature that is as good as a password."""
    return str(url.with_query(None).with_fragment(None).with_user(None)) if url.host else "The URL"
