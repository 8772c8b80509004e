"""Which network addresses a model source may lie at: the guard against server-side request forgery.

A user of one namespace chooses the URL that the operator fetches. The guard judges the address of every
single connection at the moment when its socket is made, so neither a DNS answer that changes between two
look-ups nor a redirect can lead somewhere else. Private networks (RFC 1918) are allowed: plants keep their
models there. The operator has the cluster's own ranges denied.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import aiohttp

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Metadata services of clouds outside the link-local ranges."""


class ForbiddenAddress(Exception):  # noqa: N818 - reads as the fact it states
    """A connection to this address is refused; the message is the end of a sentence about it.

    No OSError on purpose: the HTTP library would try the next address and bury this one.
    """


@dataclass(frozen=True)
class AddressPolicy:
    """The networks that are refused besides the built-in ones, and those that are allowed despite them."""

    denied: tuple[Network, ...] = ()
    allowed: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, denied: Iterable[str] = (), allowed: Iterable[str] = ()) -> AddressPolicy:
        """Read CIDRs; raises ValueError with a sentence."""
        return cls(tuple(map(ipaddress.ip_network, denied)), tuple(map(ipaddress.ip_network, allowed)))

    def objection(self, text: str) -> str | None:
        """Say why the address (numeric, as in a socket address) is refused; None if it is allowed."""
        address = ipaddress.ip_address(text)
        forms = tuple(_forms(address))
        if any(_within(form, self.allowed) for form in forms):
            return None
        for form in forms:
            if kind := _refused_kind(form):
                return f"{text} is {kind}"
            if _within(form, self.denied):
                return f"{text} is in a network that the operator's configuration denies"
        return None


def guarded_session(policy: AddressPolicy, authorities: str | None = None) -> aiohttp.ClientSession:
    """Open an HTTP session whose every connection obeys the policy; a refused one raises ForbiddenAddress.

    `authorities` are certificates (PEM) to trust besides those of the system. No proxy from the environment,
    no cookies, no transparent decompression. The caller closes it.
    """

    def make_socket(address: Any) -> socket.socket:
        family, kind, protocol, _, where = address
        if objection := policy.objection(where[0]):
            raise ForbiddenAddress(objection)
        return socket.socket(family, kind, protocol)

    context = ssl.create_default_context()
    if authorities is not None:
        context.load_verify_locations(cadata=authorities)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=context,
            socket_factory=make_socket,
            # Racing connections would swallow the refusal; addresses are tried one after the other.
            happy_eyeballs_delay=None,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={"User-Agent": "edgemodel-operator"},
    )


def _forms(address: Address) -> Iterable[Address]:
    """Give the address and the IPv4 addresses that it may stand for on the way."""
    yield address
    if not isinstance(address, IPv6Address):
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    embedded = any(address in network for network in (_NAT64, _LOCAL_NAT64, _TRANSLATED))
    if embedded or (address in _COMPATIBLE and int(address) > 1):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _refused_kind(address: Address) -> str | None:
    kinds = (
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_multicast, "a multicast address"),
        (address.is_unspecified or _within(address, (_THIS_NETWORK,)), "an unspecified address"),
        (address in _METADATA, "the address of a cloud metadata service"),
        (isinstance(address, IPv4Address) and address.is_reserved, "a reserved address"),
    )
    return next((kind for matches, kind in kinds if matches), None)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
