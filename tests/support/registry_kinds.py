"""The registries that the product is proved against, and the ways into them.

`distribution 2.8` is Debian's, `distribution 3` its successor, neither with the referrers API. `OCI 1.1` is a
server of others' making that has all of the specification, keeps its content in memory, and can send
downloads to a second server that refuses credentials, as object stores do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp

from cluster.certificates import Authority
from cluster.tools import tool
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import RetryPolicy, new_session
from support.registry import RegistryServer, free_port, serving, start_registry
from support.token_realm import ISSUER, SERVICE, TokenRealm, serve_realm

QUICK = RetryPolicy(attempts=4, first_pause=0.001, longest_pause=0.002, longest_retry_after=0.01)
LOGIN = Credential("robot", "s3cret")
_HTPASSWD = "robot:$2a$04$5wT1ksdQs.7qJinmGSLfG.RQCr5fnHJ2trEp9sTNX4uUYBEd07.8a\n"


class Kind(StrEnum):
    """A program that is a registry."""

    DISTRIBUTION_2 = "distribution 2.8"
    DISTRIBUTION_3 = "distribution 3"
    OCI_1_1 = "OCI 1.1"


class Way(StrEnum):
    """How a registry is reached; with a login always over TLS."""

    PLAIN = "plain HTTP"
    TLS = "TLS"
    BASIC = "a password"
    TOKEN = "tokens"


@dataclass(frozen=True)
class KnownRegistry:
    """A running registry, and what a client must know of it."""

    kind: Kind
    server: RegistryServer
    ca_file: Path | None = None
    login: Credential | None = None
    realm: TokenRealm | None = None

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def authorities(self) -> str:
        """Give the certificate of the registry's authority; empty for plain HTTP."""
        return self.ca_file.read_text() if self.ca_file else ""

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open a session that trusts the registry's authority."""
        async with new_session(authorities=self.authorities) as opened:
            yield opened
        await connections_gone()

    def client(self, session: aiohttp.ClientSession, **options: Any) -> RegistryClient:
        """Make a client that is let in."""
        return RegistryClient(
            session,
            credentials={self.host: self.login} if self.login else {},
            plain_http=() if self.ca_file else (self.host,),
            retry=QUICK,
            **options,
        )


async def connections_gone() -> None:
    """Wait until this event loop has no connection: one that was broken off still empties its buffers."""
    loop: Any = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while len(loop._selector.get_map()) > 1:  # its own pipe
            await asyncio.sleep(0.001)
    for _ in range(3):
        await asyncio.sleep(0)


@contextlib.contextmanager
def start_kind(
    kind: Kind, way: Way, folder: Path, *, deletes: bool = True, blob_store: bool = False
) -> Iterator[KnownRegistry]:
    """Run a registry until the block ends; a `blob_store` beside it only `OCI 1.1` has."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        door = _make_door(way, folder, stack)
        if kind is Kind.OCI_1_1:
            options = _memory_options(door.tls, way, deletes=deletes, blob_store=blob_store)
            server = stack.enter_context(_start_in_memory(folder, options))
        else:
            program = tool("distribution3") if kind is Kind.DISTRIBUTION_3 else None
            server = stack.enter_context(
                start_registry(folder, tls=door.tls, program=program, auth=door.auth, deletes=deletes)
            )
        login = LOGIN if way in {Way.BASIC, Way.TOKEN} else None
        yield KnownRegistry(kind, server, door.ca_file, login, door.realm)


@dataclass(frozen=True)
class _Door:
    """What makes a way: files for TLS, the section `auth` of the configuration, the realm of tokens."""

    tls: tuple[Path, Path] | None = None
    ca_file: Path | None = None
    auth: str = ""
    realm: TokenRealm | None = None


def _make_door(way: Way, folder: Path, stack: contextlib.ExitStack) -> _Door:
    if way is Way.PLAIN:
        return _Door()
    authority = Authority(folder / "authority")
    tls, ca_file = authority.issue("registry", "registry", hosts=["127.0.0.1"]), authority.certificate
    if way is Way.BASIC:
        users = folder / "htpasswd"
        users.write_text(_HTPASSWD)
        return _Door(tls, ca_file, f"auth: {{htpasswd: {{realm: registry, path: {users}}}}}\n")
    if way is Way.TOKEN:
        realm = TokenRealm(*tls, login=LOGIN)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
        url = stack.enter_context(serve_realm(realm, free_port(), context))
        facts = f"realm: '{url}', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {ca_file}"
        return _Door(tls, ca_file, f"auth: {{token: {{{facts}}}}}\n", realm)
    return _Door(tls, ca_file)


def _memory_options(tls: tuple[Path, Path] | None, way: Way, *, deletes: bool, blob_store: bool) -> list[str]:
    options = [] if deletes else ["--keep"]
    if tls is not None:
        options += ["--certificate", str(tls[0]), "--key", str(tls[1])]
    if way is Way.BASIC:
        options += ["--user", LOGIN.username, "--password", LOGIN.password]
    if blob_store:
        options += ["--blob-store", f"127.0.0.1:{free_port()}"]
    return options


@contextlib.contextmanager
def _start_in_memory(folder: Path, options: list[str]) -> Iterator[RegistryServer]:
    host = f"127.0.0.1:{free_port()}"
    command = [str(tool("ociregistry")), "--address", host, *options]
    with serving(command, host, folder) as process_id:
        yield RegistryServer(host, folder, process_id)
