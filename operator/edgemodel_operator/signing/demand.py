"""What has to be true of an image: whose signatures, how many, and which signed statements about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgemodel_operator.signing.keys import PublicKey


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
