"""Registry credentials and authentication challenges. Pure: nothing here talks to anybody.

Formats: `config.json` of Docker as stored in Secrets of type `kubernetes.io/dockerconfigjson`; RFC 9110
section 11 challenges; the distribution project's token authentication specification.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

_CHALLENGE = re.compile(r"\s*,?\s*(?P<scheme>[A-Za-z][A-Za-z0-9-]*)(?:\s+|$)(?P<rest>.*)", re.DOTALL)
_PARAMETER = re.compile(r'\s*,?\s*(?P<name>[A-Za-z_-]+)\s*=\s*(?:"(?P<quoted>[^"]*)"|(?P<token>[^\s,"]+))')


_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})
"""What many countries write before their own ending."""


class InvalidCredentials(ValueError):  # noqa: N818 - reads as the fact it states
    """A docker config document cannot be read. The message never quotes its content."""


@dataclass(frozen=True)
class Credential:
    """A user name and a password or access token for one registry."""

    username: str
    password: str = field(repr=False)
    token_hosts: tuple[str, ...] = ()
    """Hosts that may be shown it for a token, besides the registry and its neighbours."""

    @override
    def __repr__(self) -> str:
        return f"Credential(username={self.username!r}, password=***)"

    @property
    def basic(self) -> str:
        """Return the value of an `Authorization` header for the Basic scheme."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True)
class Challenge:
    """One `WWW-Authenticate` challenge; the scheme is lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse_docker_config(data: bytes) -> Mapping[str, Credential]:
    """Read the credentials of a docker `config.json`, by `host` or `host/path`.

    Entries without user name and password (credential helpers, identity tokens) are skipped: other hosts of
    the same Secret must keep working. A list `tokenHosts` in an entry is ours: all others pass over it.
    Raises InvalidCredentials when the document itself is broken.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidCredentials("The registry credentials are not a JSON document.") from error
    auths = document.get("auths") if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise InvalidCredentials("The registry credentials have no object 'auths'.")
    found = ((_plain_key(key), _credential(entry)) for key, entry in auths.items())
    return {key: credential for key, credential in found if credential is not None}


def find_credential(
    credentials: Mapping[str, Credential], registry: str, repository: str
) -> Credential | None:
    """Choose the credential for a repository: the longest matching key wins, as in the kubelet.

    A key is `host[:port][/path]`; in its host each `*` stands for a part of one label.
    """
    wanted = f"{registry}/{repository}"
    matching = [key for key in credentials if _matches(key, wanted)]
    return credentials[max(matching, key=len)] if matching else None


def may_see(credential: Credential, registry: str, realm: str) -> bool:
    """Tell whether the host of a token realm may be shown the credential of a registry's host.

    It may if it is the same host, or in the registry's own domain as the realms of real registries are:
    `auth.site.example` for `registry.site.example`, or `site.example` itself. Any other host has to
    be named beside the credential. Both are plain host names, without a port.
    """
    registry, realm = registry.lower().rstrip("."), realm.lower().rstrip(".")
    if realm == registry or realm in (host.lower() for host in credential.token_hosts):
        return True
    domain = registry.partition(".")[2]
    if _is_address(registry) or _belongs_to_many(domain):
        return False
    return realm == domain or realm.endswith(f".{domain}")


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _belongs_to_many(domain: str) -> bool:
    """Tell whether a domain is like `local`, `com` or `co.uk`: what lies in it has nothing in common."""
    *rest, top = domain.split(".")
    return not rest or (len(rest) == 1 and len(top) == 2 and rest[0] in _SECOND_LEVEL)


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Read all `WWW-Authenticate` values of a response; what cannot be understood is left out."""
    return tuple(challenge for header in headers for challenge in _challenges(header))


def _challenges(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    rest = header
    while match := _CHALLENGE.fullmatch(rest):
        rest = match["rest"]
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(rest):
            quoted = parameter["quoted"]
            parameters[parameter["name"].lower()] = parameter["token"] if quoted is None else quoted
            rest = rest[parameter.end() :]
        found.append(Challenge(match["scheme"].lower(), parameters))
    return found


def _plain_key(key: str) -> str:
    bare = re.sub(r"^https?://", "", key.strip())
    bare = re.sub(r"/(v1|v2)?/?$", "", bare)
    host, slash, path = bare.partition("/")
    return host.lower() + slash + path


def _credential(entry: Any) -> Credential | None:
    if not isinstance(entry, dict):
        return None
    username, password = entry.get("username"), entry.get("password")
    token_hosts = _token_hosts(entry.get("tokenHosts"))
    if isinstance(username, str) and isinstance(password, str) and username:
        return Credential(username, password, token_hosts)
    auth = entry.get("auth")
    if not isinstance(auth, str) or not auth:
        return None
    try:
        name, colon, secret = base64.b64decode(auth, validate=True).decode().strip("\x00").partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidCredentials("A field 'auth' of the registry credentials is not base64.") from error
    return Credential(name, secret, token_hosts) if colon and name else None


def _token_hosts(value: Any) -> tuple[str, ...]:
    return tuple(host for host in value if isinstance(host, str)) if isinstance(value, list) else ()


def _matches(key: str, wanted: str) -> bool:
    host_pattern, _, path = key.partition("/")
    host, _, repository = wanted.partition("/")
    labels, patterns = host.split("."), host_pattern.split(".")
    host_fits = len(labels) == len(patterns) and all(map(fnmatch.fnmatchcase, labels, patterns))
    return host_fits and (not path or f"{repository}/".startswith(f"{path.rstrip('/')}/"))
