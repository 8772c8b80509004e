"""Model files behind HTTP(S) URLs, and what logs in there."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from yarl import URL

from edgemodel_operator.api.source import HttpFile, HttpSource
from edgemodel_operator.build.addresses import guarded_session
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.connection import parse_url, status_failure
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.sources.files import Fetch
from edgemodel_operator.build.sources.secrets import authorities, text_of
from edgemodel_operator.build.sources.transfer import download


@dataclass(frozen=True)
class HttpRequests:
    """Requests for a file behind a URL; `authorization` goes to `home` alone."""

    url: URL
    insecure: bool
    home: URL
    authorization: str = field(repr=False)
    follows: bool = True

    def headers(self, url: URL, plain: Mapping[str, str]) -> Mapping[str, str]:
        """Add the authorization where the address is of the host that it is meant for."""
        if self.authorization and url.origin() == self.home.origin():
            return {**plain, "Authorization": self.authorization}
        return plain

    async def failure(self, response: aiohttp.ClientResponse) -> BuildError:
        """Put an answer that brings no file into words."""
        return status_failure(response.url, response.status, response.headers)


@asynccontextmanager
async def http_files(
    source: HttpSource, allowance: Allowance, access: SourceAccess
) -> AsyncIterator[Fetch[HttpFile]]:
    """Open what fetches the files of the source; raises BuildError."""
    secret = access.secret or {}
    authorization = _authorization(source, secret) if source.credentials_secret else ""
    home = parse_url(source.url)
    async with guarded_session(allowance.policy, authorities(source.credentials_secret, secret)) as session:

        async def fetch(
            file: HttpFile, endings: tuple[str, ...], destination: Path, allowance: Allowance
        ) -> SourceFile:
            requests = HttpRequests(parse_url(file.url), source.insecure, home, authorization)
            return await download(session, requests, destination, allowance, pinned=bool(file.sha256))

        yield fetch


def _authorization(source: HttpSource, secret: Mapping[str, bytes]) -> str:
    """Give the Authorization header; empty where the Secret holds certificates alone."""
    name = source.credentials_secret.name if source.credentials_secret else ""
    user, password, token = (text_of(secret, key, name) for key in ("username", "password", "token"))
    if token and not (user or password):
        return f"Bearer {token}"
    if user and password and not token:
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    if not (user or password or token) and "ca.crt" in secret:
        return ""
    raise fail(
        Reason.SOURCE_SECRET_INVALID,
        f"The Secret {name} must hold either `username` and `password`, or `token`, or `ca.crt` alone.",
    )
