"""One guarded request for a file: redirects by hand, and every failure of the network in words.

Redirects are followed by hand, so that each step is held against the same rules: https stays https, the
address of every connection passes the guard, and what is sent along is decided anew for each address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Protocol

import aiohttp
from yarl import URL

from edgemodel_operator.build.addresses import ForbiddenAddress
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.sources.download import Allowance

MAX_REDIRECTS = 5
CONNECT_SECONDS = 15

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429})
_DAY_SECONDS = 86400


class Interruption(Exception):  # noqa: N818 - reads as the fact it states
    """An attempt ended in a way that another one may cure; `error` is raised when there is no other."""

    def __init__(self, error: BuildError) -> None:
        super().__init__(str(error))
        self.error = error


class Requests(Protocol):
    """How a kind of source asks for its file."""

    @property
    def url(self) -> URL:
        """Where the file lies."""

    @property
    def insecure(self) -> bool:
        """Whether plain http is allowed."""

    @property
    def follows(self) -> bool:
        """Whether redirects are followed."""

    def headers(self, url: URL, plain: Mapping[str, str]) -> Mapping[str, str]:
        """Give the headers to send to an address: the plain ones, and what may authorize us there."""

    async def failure(self, response: aiohttp.ClientResponse) -> BuildError:
        """Put an answer that brings no file into words."""


@asynccontextmanager
async def open_answer(
    session: aiohttp.ClientSession, requests: Requests, plain: Mapping[str, str], allowance: Allowance
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Open the answer to a request for the file, after all redirects.

    Failures while the block reads it are put into words as well. Raises BuildError, or Interruption where
    another attempt may help.
    """
    url = requests.url
    for _ in range(MAX_REDIRECTS + 1):
        _check_scheme(url, insecure=requests.insecure)
        async with _get(session, url, requests.headers(url, plain), allowance) as response:
            if response.status not in _REDIRECTS or not requests.follows:
                yield response
                return
            url = _next_url(url, response)
    raise fail(Reason.SOURCE_UNAVAILABLE, f"{shown(requests.url)} redirects more than {MAX_REDIRECTS} times.")


def is_transient(status: int) -> bool:
    """Tell whether the same request may be answered otherwise in a moment."""
    return status in _TRANSIENT or status >= 500


def status_failure(url: URL, status: int, headers: Mapping[str, str]) -> BuildError:
    """Put an answer with a status that is no success into words."""
    where = shown(url)
    if status in {404, 410}:
        return fail(Reason.SOURCE_NOT_FOUND, f"{where} does not exist (status {status}).")
    if status in {401, 403}:
        return fail(Reason.SOURCE_DENIED, f"{where} wants credentials, or refuses us (status {status}).")
    wait = retry_after(headers) if is_transient(status) else None
    return fail(Reason.SOURCE_UNAVAILABLE, f"{where} answered with status {status}.", retry_after=wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Give the seconds that a server asks us to wait, if it does and they are less than a day.

    Format: RFC 9110, 10.2.3: seconds, or a date, which is held against the server's own clock.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:6])
    else:
        try:
            until, now = (parsedate_to_datetime(value) for value in (text, headers.get("Date", "")))
            seconds = (until - now).total_seconds()
        except (TypeError, ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < _DAY_SECONDS else None


def parse_url(text: str) -> URL:
    """Read a URL and keep its bytes: what is signed in it may not be quoted in another way.

    Only what is no URL by the letter (spaces, other scripts) is quoted. Raises ValueError.
    """
    exact = text.isascii() and text.isprintable() and " " not in text
    return URL(text, encoded=exact)


def shown(url: URL) -> str:
    """Give the URL as it may be shown: the query can hold a signature that is as good as a password."""
    return str(url.with_query(None).with_fragment(None).with_user(None)) if url.host else "The URL"


@asynccontextmanager
async def _get(
    session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str], allowance: Allowance
) -> AsyncIterator[aiohttp.ClientResponse]:
    idle = allowance.idle_seconds
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle)
    request = session.get(url, allow_redirects=False, timeout=timeout, headers=headers)
    try:
        # The head as a whole has a limit as well: a server could send a byte of it now and then.
        async with asyncio.timeout(CONNECT_SECONDS + idle):
            response = await request
        async with response:
            yield response
    except ForbiddenAddress as error:
        raise fail(Reason.SOURCE_FORBIDDEN_ADDRESS, f"{shown(url)} is refused: {error}.") from error
    except aiohttp.InvalidURL as error:
        raise fail(Reason.SOURCE_FORBIDDEN_ADDRESS, f"{shown(url)} names no plain address.") from error
    except aiohttp.ConnectionTimeoutError as error:
        late = fail(Reason.SOURCE_TIMEOUT, f"{shown(url)} did not accept a connection in time.")
        raise Interruption(late) from error
    except TimeoutError as error:
        raise Interruption(
            fail(Reason.SOURCE_TIMEOUT, f"{shown(url)} sent nothing for {idle:g} seconds.")
        ) from error
    except aiohttp.ClientError as error:
        raise _client_failure(url, error) from error


def _client_failure(url: URL, error: aiohttp.ClientError) -> BuildError | Interruption:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
        return fail(
            Reason.SOURCE_TLS_FAILED, f"The certificate of {url.host} is not trusted: {why.rstrip('.')}."
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return fail(Reason.SOURCE_TLS_FAILED, f"{url.host} does not speak TLS as we need it.")
    if isinstance(error, aiohttp.ClientResponseError):
        return fail(Reason.SOURCE_UNAVAILABLE, f"{shown(url)} does not answer as an HTTP server should.")
    return Interruption(fail(Reason.SOURCE_UNAVAILABLE, _breakage(url, error)))


def _breakage(url: URL, error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"The host name {url.host} cannot be resolved."
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"{shown(url)} broke off in the middle of the file."
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{url.host} cannot be reached: {error.strerror or type(error).__name__}."
    return f"{shown(url)} failed: {type(error).__name__}."


def _next_url(url: URL, response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location", "")
    try:
        target = url.join(parse_url(location))
    except ValueError as error:
        raise fail(
            Reason.SOURCE_UNAVAILABLE, f"{shown(url)} redirects to something that is no URL."
        ) from error
    if not location or not target.host:
        raise fail(Reason.SOURCE_UNAVAILABLE, f"{shown(url)} redirects to nowhere.")
    return target.with_user(None) if target.user or target.password else target


def _check_scheme(url: URL, *, insecure: bool) -> None:
    if url.scheme == "https" or (insecure and url.scheme == "http"):
        return
    raise fail(
        Reason.SOURCE_FORBIDDEN_ADDRESS,
        f"{shown(url)} is refused: only https is allowed; for plain http set `insecure: true`.",
    )
