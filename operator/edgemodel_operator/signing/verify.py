"""Verify that somebody we know vouches for an image. The procedure, whose numbers the code carries:

 1. The reference names a sha256 digest. Tags are never verified: they can move afterwards.
 2. There is at least one authority with at least one key. Without any, nothing is trusted.
 3. The manifest is read by that digest; its bytes hash to it, and they are either an image or an index.
 4. The signature objects stored beside the digest are read, in the legacy and in the bundle format, each
    hashed, each within its size limit. What the registry fails to deliver is an error, never "unsigned".
 5. A key of an authority verifies the signature over the exact bytes; the algorithm is the key's.
 6. Only then the signed document is parsed: right type, one meaning, one subject; an attestation is no
    signature.
 7. It names this digest.
 8. It names this repository (a bundle by cosign names none), or the caller accepts copies from elsewhere.
 9. Of an index, each platform is bound by standing in the signed bytes; or has to be signed itself, if asked.
10. All authorities that vouch are named. Without any, the verdict says what was missing.

Formats and objects are alternatives: junk beside a good signature is counted and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.errors import RegistryError, TooLarge
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.demand import Authority
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.judge import Wanted, judge_digest, judge_signature
from edgemodel_operator.signing.stored import read_image, read_signatures
from edgemodel_operator.signing.verdict import (
    Evidence,
    Format,
    Reason,
    Rejected,
    Trusted,
    Untrusted,
    Verdict,
    Vouching,
)


async def verify_image(
    client: RegistryClient,
    image: Reference,
    authorities: Sequence[Authority],
    *,
    any_repository: bool = False,
    platforms_signed: bool = False,
) -> Verdict:
    """Tell which of `authorities` vouch for `image`, an index or a single platform, named by digest.

    `platforms_signed` asks that each platform of an index has a signature of its own, by an authority that
    also signed the index. Raises `RegistryError` when the registry could not be read as far as needed: try
    again later, and cache nothing.
    """
    # (1) A digest.
    if image.digest is None:
        return _untrusted(image, Reason.NO_DIGEST, "it is named by tag, and only a digest can be verified")
    # (2) Somebody who could vouch.
    if not any(authority.keys for authority in authorities):
        return _untrusted(image, Reason.NO_AUTHORITY, "no key is configured that could vouch for it")
    # (3) The manifest.
    try:
        _, platforms = await read_image(client, image)
    except FormatError as error:
        return _untrusted(image, Reason.AMBIGUOUS_MANIFEST, str(error))
    # (4) to (8) What is signed.
    verification = _Verification(client, image, authorities, any_repository)
    evidence, rejected = await verification.of_digest(image.digest)
    if rejected is not None:
        return _untrusted(image, rejected.reason, rejected.message, evidence)
    # (9) The platforms.
    if platforms_signed:
        return await _with_signed_platforms(verification, evidence, platforms)
    # (10) The verdict.
    listed = tuple(
        Evidence(one.digest, evidence.by, platform=_platform(one), listed_in=image.digest)
        for one in platforms
    )
    return Trusted(evidence.by, (evidence, *listed))


@dataclass(frozen=True)
class _Verification:
    """What stays the same for all digests of one image."""

    client: RegistryClient
    image: Reference
    authorities: Sequence[Authority]
    any_repository: bool

    async def of_digest(self, digest: str) -> tuple[Evidence, Rejected | None]:
        wanted = Wanted(self.image.name, digest, self.any_repository)
        everybody = {authority.name for authority in self.authorities if authority.keys}
        findings: list[Vouching | Rejected] = []
        errors: list[RegistryError] = []
        unreadable = 0
        for kind in (Format.LEGACY, Format.BUNDLE):
            # (4) Read, and go on to the next format as long as somebody's signature is still missing.
            try:
                found = await read_signatures(self.client, self.image, digest, kind)
            except TooLarge as error:
                findings.append(Rejected(Reason.TOO_MANY_OBJECTS, f"too much is attached to it: {error}"))
                continue
            except RegistryError as error:
                errors.append(error)
                continue
            errors.extend(found.errors)
            unreadable += found.unreadable
            # (5) to (8)
            findings.extend(judge_signature(one, wanted, self.authorities) for one in found.candidates)
            evidence, _ = judge_digest(findings, unreadable, wanted)
            if everybody <= set(evidence.by):
                return evidence, None
        if errors:
            raise errors[0]
        return judge_digest(findings, unreadable, wanted)


async def _with_signed_platforms(
    verification: _Verification, index: Evidence, platforms: Sequence[Descriptor]
) -> Verdict:
    by, evidence = index.by, [index]
    for platform in platforms:
        own, rejected = await verification.of_digest(platform.digest)
        evidence.append(replace(own, platform=_platform(platform)))
        by = tuple(name for name in by if name in own.by)
        if not by:
            why = rejected.message if rejected else "it is signed by another authority than the index"
            message = f"its platform {_platform(platform)} ({platform.digest}) does not verify: {why}"
            return _untrusted(verification.image, Reason.PLATFORM_UNSIGNED, message, *evidence)
    return Trusted(by, tuple(evidence))


def _platform(descriptor: Descriptor) -> str:
    return str(descriptor.platform or "unknown")


def _untrusted(image: Reference, reason: Reason, message: str, *evidence: Evidence) -> Untrusted:
    return Untrusted(reason, f"{image} is not trusted: {message}.", evidence)
