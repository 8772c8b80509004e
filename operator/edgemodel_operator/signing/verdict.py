"""What is found out about an image, and the verdict that follows, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class Format(StrEnum):
    """The two ways in which cosign stores signatures."""

    LEGACY = "Legacy"
    BUNDLE = "Bundle"


class Reason(StrEnum):
    """Why an image is not trusted. Of several, the first in this order is reported: it tells most."""

    OTHER_DIGEST = "OtherDigest"
    OTHER_REPOSITORY = "OtherRepository"
    MALFORMED = "Malformed"
    ONLY_ATTESTATION = "OnlyAttestation"
    UNKNOWN_KEY = "UnknownKey"
    UNSIGNED = "Unsigned"
    TOO_FEW_AUTHORITIES = "TooFewAuthorities"
    REQUIRED_AUTHORITY_MISSING = "RequiredAuthorityMissing"
    PLATFORM_UNSIGNED = "PlatformUnsigned"
    ATTESTATION_MISSING = "AttestationMissing"
    ATTESTATION_CHECK_FAILED = "AttestationCheckFailed"
    AMBIGUOUS_MANIFEST = "AmbiguousManifest"
    NO_AUTHORITY = "NoAuthority"
    NO_DIGEST = "NoDigest"


CHECKED = {
    1: "the reference names a digest",
    2: "somebody is named who could vouch",
    3: "the manifest is what the digest says, and clearly an image or an index",
    4: "what is stored beside it could be read",
    5: "a key or identity that counts made the signature",
    6: "the signed document is a signature, with one meaning",
    7: "it is about this digest",
    8: "it is about this repository",
    9: "enough different authorities signed, the required ones among them",
    10: "each platform is vouched for",
    11: "each attestation that is asked for is there",
    12: "the image is trusted",
}
"""What each step of the procedure checks, for printing."""


class Outcome(StrEnum):
    """How a step of the procedure ended. `IGNORED`: an object did not count, which alone harms nothing."""

    HOLDS = "holds"
    FAILS = "fails"
    IGNORED = "ignored"
    NOT_ASKED = "not asked"


@dataclass(frozen=True)
class Step:
    """One step of the procedure that `verify` writes down, as it went: for people who ask why.

    `number` is the procedure's, `checked` says what had to hold, `detail` what was found.
    """

    number: int
    checked: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Vouching:
    """One signature that counts: by whom, with which key, where it is stored.

    `authorities` are all names under which the signer is known. `key` is what tells signers apart: the
    fingerprint of a key, or a hash of the identity in a certificate. `binds_repository` is false for
    signatures that would be as good for a copy under another name.
    """

    format: Format
    source: str
    authorities: tuple[str, ...]
    key: str
    binds_repository: bool


@dataclass(frozen=True)
class Rejected:
    """One signature that does not count, and why; `message` is a sentence without its full stop.

    `step` is the number of the step at which it fell.
    """

    reason: Reason
    message: str
    step: int = 4


@dataclass(frozen=True)
class Attested:
    """One signed statement that satisfies a demand: which (`name`), by whom, with which key, where stored."""

    name: str
    predicate_type: str
    source: str
    authorities: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Evidence:
    """What was found for one digest.

    `by` names the authorities that vouch; `listed_in` is set when they do so by signing the index that lists
    this digest; `ignored` counts signature objects that did not count.
    """

    digest: str
    by: tuple[str, ...]
    platform: str = ""
    listed_in: str = ""
    signatures: tuple[Vouching, ...] = ()
    ignored: int = 0
    attestations: tuple[Attested, ...] = ()


@dataclass(frozen=True)
class Trusted:
    """The image may run: every authority in `by` vouches for it; evidence for each digest of it."""

    by: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    steps: tuple[Step, ...] = field(default=(), compare=False)
    trusted: bool = field(default=True, init=False)


@dataclass(frozen=True)
class Untrusted:
    """The image may not run. `message` is a sentence that names the image and what was missing."""

    reason: Reason
    message: str
    evidence: tuple[Evidence, ...] = ()
    steps: tuple[Step, ...] = field(default=(), compare=False)
    trusted: bool = field(default=False, init=False)


Verdict: TypeAlias = Trusted | Untrusted
