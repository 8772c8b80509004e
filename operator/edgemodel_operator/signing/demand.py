"""What has to be true of an image: whose signatures, how many, and which signed statements about it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.signing.keys import PublicKey

PROCEDURE = 2
"""The version of the procedure that `verify` writes down: raised when an image can fare differently."""


class Identity(Protocol):
    """Somebody without a key of their own: known by a short-lived certificate under a pinned trusted root."""

    @property
    def name(self) -> str:
        """Name whom and by which trusted root, for logs; two identities that differ have other names."""
        ...

    def verifies(self, bundle: bytes) -> bool:
        """Tell whether this identity made the Sigstore bundle (its JSON). Never raises for bad bundles."""
        ...


@dataclass(frozen=True)
class Authority:
    """Someone who may vouch for images: a name for people, and any of whose keys or identities will do."""

    name: str
    keys: tuple[PublicKey, ...] = ()
    identities: tuple[Identity, ...] = ()

    @property
    def can_vouch(self) -> bool:
        """Whether there is a key or an identity by which it is known."""
        return bool(self.keys or self.identities)


@dataclass(frozen=True)
class PredicateCheck:
    """A CEL expression over `predicate` that must give true, and what is said when it does not."""

    expression: str
    message: str


@dataclass(frozen=True)
class WantedAttestation:
    """A signed statement that must be there; `authorities` names who may have signed it (empty: anybody)."""

    name: str
    predicate_type: str
    authorities: frozenset[str] = frozenset()
    checks: tuple[PredicateCheck, ...] = ()


@dataclass(frozen=True)
class Demand:
    """All that must hold for an image.

    `threshold` different authorities must have signed it, all of `required` among them. `any_repository` lets
    signatures for other names, and for none, count. `platforms_signed` asks that each platform of an index is
    signed itself.
    """

    authorities: tuple[Authority, ...]
    threshold: int = 1
    required: frozenset[str] = frozenset()
    attestations: tuple[WantedAttestation, ...] = ()
    any_repository: bool = False
    platforms_signed: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Name all that decides, keys and trusted roots included: equal ones give equal verdicts."""
        document = {
            "procedure": PROCEDURE,
            "authorities": [
                {
                    "name": one.name,
                    "keys": [key.fingerprint for key in one.keys],
                    "identities": [identity.name for identity in one.identities],
                }
                for one in self.authorities
            ],
            "threshold": self.threshold,
            "required": sorted(self.required),
            "attestations": [
                {
                    "name": one.name,
                    "type": one.predicate_type,
                    "authorities": sorted(one.authorities),
                    "checks": [[check.expression, check.message] for check in one.checks],
                }
                for one in self.attestations
            ],
            "anyRepository": self.any_repository,
            "platformsSigned": self.platforms_signed,
        }
        return hashlib.sha256(canonical_json(document)).hexdigest()
