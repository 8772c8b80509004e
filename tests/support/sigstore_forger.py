"""Keyless bundles of one site, and what a forger changes of them."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass
from datetime import timedelta

from typing_extensions import override

from edgemodel_operator.signing.keyless import KeylessIdentity, load_identity
from support.sigstore_site import ISSUER, SUBJECT, THEN, Change, Json, Log, Site, new_key

STATEMENT = b'{"_type":"https://in-toto.io/Statement/v1"}'
OTHER_STATEMENT = b'{"_type":"https://in-toto.io/Statement/v0.1"}'

SITE = Site()
GOOD = SITE.bundle(STATEMENT)


def identity_of(site: Site, change: Change | None = None) -> KeylessIdentity:
    """Load the usual identity under a site's trusted root, after a change to that."""
    return load_identity(site.trusted_root(change), issuer=ISSUER, subject=SUBJECT)


def refusal(identity: KeylessIdentity, document: Json) -> str:
    """Say why a bundle is refused; empty if it is not."""
    data = json.dumps(document).encode()
    said = identity.refusal(data)
    assert identity.verifies(data) is (said == "")
    return said


def changed(document: Json, change: Change) -> Json:
    """Return a changed copy."""
    made = copy.deepcopy(document)
    change(made)
    return made


def material(document: Json) -> Json:
    """Return what a bundle's verification is made of."""
    inner: Json = document["verificationMaterial"]
    return inner


def entry(document: Json) -> Json:
    """Return a bundle's log entry."""
    first: Json = material(document)["tlogEntries"][0]
    return first


@dataclass(frozen=True)
class Impostor(Log):
    """A log that calls itself by an id of another."""

    named: bytes = b""

    def __init__(self, named: bytes, key: object = None) -> None:
        object.__setattr__(self, "key", key or new_key())
        object.__setattr__(self, "named", named)

    @property
    @override
    def id(self) -> bytes:
        return self.named


def recorded_in(log: Log, document: Json) -> Json:
    """Record in another log what a bundle's entry records."""
    body = base64.b64decode(entry(document)["canonicalizedBody"])
    made = SITE.entry(body, THEN + timedelta(seconds=1), by=log)
    return changed(document, lambda one: material(one).update(tlogEntries=[made]))
