"""Where keyless signing gets its certificate, log entry and timestamps: always named by the user.

Format: the client trust config of the Sigstore libraries (`sigstore_trustroot.proto`): a signing config,
which says where the services are, and the trusted root under which verifiers will check what they answer. No
address is built in, and none is looked up.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pydantic import ValidationError
from sigstore.errors import Error
from sigstore.models import ClientTrustConfig
from sigstore.sign import SigningContext

from edgemodel_operator.signing.errors import BadServices
from edgemodel_operator.signing.keyless_root import PinnedRoot, load_trusted_root

MAX_TRUST_CONFIG_BYTES = 2 * 1024 * 1024

NO_SERVICES = (
    "keyless signing must be told which services to use: give a client trust config, or a trusted root and "
    "the addresses of a certificate authority, a transparency log and a timestamp authority; nothing is "
    "contacted by default"
)

_CONFIG_TYPE = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
_SERVICES_TYPE = "application/vnd.dev.sigstore.signingconfig.v0.2+json"
_ROOT_TYPE = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"


@dataclass(frozen=True)
class Services:
    """The services that were named, and the trusted root under which their work must verify."""

    authority: str
    root: PinnedRoot
    _config: ClientTrustConfig = field(repr=False, compare=False)

    def new_context(self) -> SigningContext:
        """Return a connection to them; nothing is contacted yet."""
        return SigningContext.from_trust_config(self._config)


def load_services(trust_config: bytes | None) -> Services:
    """Read a client trust config. Raises `BadServices` and `BadTrustedRoot`; `None` is refused as well."""
    if not trust_config:
        raise BadServices(NO_SERVICES)
    if len(trust_config) > MAX_TRUST_CONFIG_BYTES:
        raise BadServices(f"the client trust config has more than {MAX_TRUST_CONFIG_BYTES} bytes")
    try:
        document = json.loads(trust_config)
        root = load_trusted_root(json.dumps(document["trustedRoot"]).encode())
        document["trustedRoot"]["mediaType"] = _ROOT_TYPE  # the other name of the same format
        config = ClientTrustConfig.from_json(json.dumps(document))
        services = config.signing_config
        authority = services.get_fulcio().url
        has_clock = bool(services.get_tsas())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise BadServices(f"the client trust config cannot be read, at {where}: {first['msg']}") from None
    except (ValueError, KeyError, TypeError, Error) as error:
        raise BadServices(f"the client trust config cannot be used: {str(error)[:256]}") from None
    _refuse_eavesdropping(authority)
    if not has_clock and _logs_prove_no_time(document):
        raise BadServices("name a timestamp authority: a transparency log of version 2 proves no time")
    return Services(authority, root, config)


def describe_services(
    trusted_root: bytes, *, fulcio: str, rekor: str, timestamps: str | None = None, rekor_version: int = 2
) -> bytes:
    """Return the client trust config for services that are named by their addresses."""

    def service(url: str, version: int) -> dict[str, object]:
        return {"url": url.rstrip("/"), "majorApiVersion": version, "operator": urlsplit(url).netloc}

    load_trusted_root(trusted_root)
    return json.dumps(
        {
            "mediaType": _CONFIG_TYPE,
            "trustedRoot": json.loads(trusted_root),
            "signingConfig": {
                "mediaType": _SERVICES_TYPE,
                "caUrls": [service(fulcio, 1)],
                "rekorTlogUrls": [service(rekor, rekor_version)],
                "tsaUrls": [service(timestamps, 1)] if timestamps else [],
            },
        }
    ).encode()


def _refuse_eavesdropping(url: str) -> None:
    """Who reads the identity token on its way can sign in its owner's name."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(parts.hostname or "")):
        return
    raise BadServices(f"the certificate authority {url!r} gets the identity token: its address must be https")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _logs_prove_no_time(document: dict[str, dict[str, list[dict[str, object]]]]) -> bool:
    logs = document["signingConfig"].get("rekorTlogUrls", [])
    return any(log.get("majorApiVersion") == 2 for log in logs)
