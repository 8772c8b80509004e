"""Model files in S3-compatible stores: plain GET requests, signed with Signature Version 4.

botocore signs; the requests go through the same guarded and resuming download as those for URLs. Redirects
are not followed: a signature holds for one host, and a store that sends elsewhere says that region or
endpoint are not the right ones.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from edgemodel_operator.api.source import S3File, S3Source
from edgemodel_operator.build.addresses import guarded_session
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.connection import shown, status_failure
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.sources.files import Fetch
from edgemodel_operator.build.sources.secrets import authorities, text_of
from edgemodel_operator.build.sources.transfer import download

_ERROR_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
_REGION = re.compile(rb"<Region>([a-z0-9-]{1,63})</Region>")
_ENDPOINT = re.compile(rb"<Endpoint>([A-Za-z0-9.:-]{1,253})</Endpoint>")
_NOT_FOUND = {
    "NoSuchKey": "The object {key} does not exist in the bucket {bucket}.",
    "NoSuchBucket": "The bucket {bucket} does not exist at {endpoint}.",
}
_SENTENCES = {
    "AccessDenied": "{where} may not be read{whose}.",
    "InvalidAccessKeyId": "{endpoint} does not know the access key{whose}.",
    "SignatureDoesNotMatch": "{endpoint} refuses the secret key{whose}: it is not that of the access key.",
    "ExpiredToken": "The session token{whose} has expired.",
    "InvalidToken": "{endpoint} does not accept the session token{whose}.",
    "RequestTimeTooSkewed": "The clock of this machine and that of {endpoint} differ too much.",
    "InvalidObjectState": "{where} is archived: bring it back to a storage class that can be read.",
}


@dataclass(frozen=True)
class S3Requests:
    """Requests for one object; `credentials` None: they are not signed."""

    source: S3Source
    key: str
    credentials: Credentials | None = field(repr=False)
    follows: bool = False

    @property
    def url(self) -> URL:
        """The address of the object: `host/bucket/key` or `bucket.host/key`."""
        return object_url(self.source, self.key)

    @property
    def insecure(self) -> bool:
        """Whether plain http is allowed."""
        return self.source.insecure

    def headers(self, url: URL, plain: Mapping[str, str]) -> Mapping[str, str]:
        """Sign the request. Format: AWS Signature Version 4, "Authenticating Requests (AWS S3)".

        Host and `x-amz-*` are signed, as they must be, and nothing else: gateways in front of stores change
        headers like Accept-Encoding.
        """
        if self.credentials is None:
            return plain
        request = AWSRequest("GET", str(url))
        S3SigV4Auth(self.credentials, "s3", self.source.region).add_auth(request)
        return {**plain, **dict(request.headers.items())}

    async def failure(self, response: aiohttp.ClientResponse) -> BuildError:
        """Put the store's own error document into words."""
        try:
            body = await response.content.read(_ERROR_BYTES)
        except (aiohttp.ClientError, TimeoutError):
            body = b""
        match = _CODE.search(body)
        code = match[1].decode() if match else ""
        facts = self._facts(response.url)
        if place := self._other_place(response, body):
            return fail(Reason.SOURCE_INVALID, place)
        if code in _NOT_FOUND:
            return fail(Reason.SOURCE_NOT_FOUND, _NOT_FOUND[code].format(**facts))
        if code in _SENTENCES:
            return fail(Reason.SOURCE_DENIED, _SENTENCES[code].format(**facts))
        return status_failure(response.url, response.status, response.headers)

    def _facts(self, url: URL) -> Mapping[str, str]:
        secret = self.source.credentials_secret
        whose = f" with the Secret {secret.name}" if secret else " without credentials"
        endpoint = self.source.endpoint
        return {
            "key": self.key,
            "bucket": self.source.bucket,
            "endpoint": endpoint,
            "where": shown(url),
            "whose": whose,
        }

    def _other_place(self, response: aiohttp.ClientResponse, body: bytes) -> str:
        """Say which region or endpoint the store asks for, where it does."""
        bucket, ours = self.source.bucket, self.source.region
        named = _REGION.search(body)
        region = response.headers.get("x-amz-bucket-region", named[1].decode() if named else "")[:63]
        if response.status in _REDIRECTS:
            found = _ENDPOINT.search(body)
            place = " ".join(
                part
                for part in (found[1].decode() if found else "", f"in region {region}" if region else "")
                if part
            )
            return (
                f"The bucket {bucket} is served elsewhere{f' ({place})' if place else ''}: set `endpoint` "
                "and `region` to where it is."
            )
        if region and region != ours and response.status in {400, 403}:
            return f"The bucket {bucket} is in the region {region}, not in {ours}: set `region: {region}`."
        return ""


def object_url(source: S3Source, key: str) -> URL:
    """Give the address of an object; raises BuildError(SourceInvalid) where the endpoint allows none."""
    endpoint = URL(source.endpoint)
    if endpoint.query_string or endpoint.fragment or not endpoint.host:
        raise fail(
            Reason.SOURCE_INVALID, "The endpoint of an S3 store is https://host[:port], without a query."
        )
    host, path = endpoint.host_port_subcomponent or "", endpoint.raw_path.rstrip("/")
    if source.virtual_host_style:
        if _is_address(endpoint.host):
            raise fail(
                Reason.SOURCE_INVALID,
                "`virtualHostStyle` needs an endpoint with a host name, since the bucket is put before it.",
            )
        host = f"{source.bucket}.{host}"
    else:
        path = f"{path}/{source.bucket}"
    # The signature covers the path byte for byte: nothing may encode or shorten it later.
    return URL(f"{endpoint.scheme}://{host}{path}/{quote(key, safe='/-_.~')}", encoded=True)


@asynccontextmanager
async def s3_files(
    source: S3Source, allowance: Allowance, access: SourceAccess
) -> AsyncIterator[Fetch[S3File]]:
    """Open what fetches the objects of the source; raises BuildError."""
    secret = access.secret or {}
    credentials = _credentials(source, secret)
    async with guarded_session(allowance.policy, authorities(source.credentials_secret, secret)) as session:

        async def fetch(
            file: S3File, endings: tuple[str, ...], destination: Path, allowance: Allowance
        ) -> SourceFile:
            requests = S3Requests(source, file.key, credentials)
            fetched = await download(session, requests, destination, allowance, pinned=bool(file.sha256))
            return SourceFile(fetched.path, file.key, fetched.sha256, fetched.size)

        yield fetch


def _credentials(source: S3Source, secret: Mapping[str, bytes]) -> Credentials | None:
    if source.credentials_secret is None:
        return None
    name = source.credentials_secret.name
    key, password, token = (
        text_of(secret, entry, name)
        for entry in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    )
    if key and password:
        return Credentials(key, password, token or None)
    if not (key or password or token) and "ca.crt" in secret:
        return None
    raise fail(
        Reason.SOURCE_SECRET_INVALID,
        f"The Secret {name} must hold `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or `ca.crt` alone.",
    )


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()
