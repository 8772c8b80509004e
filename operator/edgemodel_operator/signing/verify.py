"""Verify that those whom we ask for vouch for an image. The procedure, whose numbers the code carries:

 1. The reference names a sha256 digest. Tags are never verified: they can move afterwards.
 2. There are authorities with keys or identities. Without any, nothing is trusted.
 3. The manifest is read by that digest; its bytes hash to it, and they are either an image or an index.
 4. The signature objects stored beside the digest are read, in the legacy and in the bundle format, each
    hashed, each within its size limit. What the registry fails to deliver is an error, never "unsigned"; so
    is what is more than will be read, unless what was read suffices.
 5. A key or identity of an authority verifies the signature over the exact bytes; the algorithm is the key's.
 6. Only then the signed document is parsed: right type, one meaning, one subject; an attestation is no
    signature.
 7. It names this digest.
 8. It names this repository, or the caller accepts copies from elsewhere.
 9. Enough different authorities signed, the required ones among them. One key counts once, under any names.
10. Of an index, each platform is bound by standing in the signed bytes; or, if asked, has to be signed itself
    by those who signed the index.
11. Each attestation that is asked for is there: a statement signed by an allowed authority, about this digest
    or each of its platforms, whose signed type is the one asked for and whose content passes every check.
12. All authorities that vouch are named. Of what is missing, the verdict says what.

Formats and objects are alternatives: junk beside a good signature is counted and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attestation_search import AttestationSearch, Result
from edgemodel_operator.signing.attestations import NOTHING_FOUND
from edgemodel_operator.signing.demand import Demand, WantedAttestation
from edgemodel_operator.signing.digests import DigestVerification
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.judge import judge_signers
from edgemodel_operator.signing.predicates import PredicateChecks
from edgemodel_operator.signing.stored import read_image, runnable_platforms
from edgemodel_operator.signing.verdict import (
    CHECKED,
    Evidence,
    Outcome,
    Reason,
    Rejected,
    Step,
    Trusted,
    Untrusted,
    Verdict,
)


async def verify_image(client: RegistryClient, image: Reference, demand: Demand) -> Verdict:
    """Tell whether `demand` holds for `image`, an index or a single platform, named by digest.

    Raises `RegistryError` when the registry could not be read as far as needed, and `CannotCheck` when an
    attestation could not be: try again later, and keep nothing.
    """
    procedure = _Procedure(client, image, demand)
    try:
        evidence = await procedure.run()
    except _Refused as refused:
        message = f"{image} is not trusted: {refused.why.message}."
        return Untrusted(refused.why.reason, message, tuple(procedure.evidence), tuple(procedure.steps))
    return Trusted(evidence[0].by, evidence, tuple(procedure.steps))


class _Refused(Exception):  # noqa: N818 - reads as the fact it states
    """Ends the procedure: the image is not trusted."""

    def __init__(self, why: Rejected) -> None:
        super().__init__(why.message)
        self.why = why


class _Procedure:
    """One run of the procedure. `evidence` and `steps` also tell how far it came."""

    def __init__(self, client: RegistryClient, image: Reference, demand: Demand) -> None:
        self.evidence: list[Evidence] = []
        self.steps: list[Step] = []
        self._client = client
        self._image = image
        self._demand = demand
        self._digests = DigestVerification(client, image, demand, self.steps)
        self._attestations = AttestationSearch(client, image, demand)

    async def run(self) -> tuple[Evidence, ...]:
        """Go through the steps; raises _Refused at one that fails, RegistryError where that is not known."""
        # (1) A digest.
        digest = self._require_digest()
        # (2) Somebody who could vouch.
        self._require_authorities()
        # (3) The manifest.
        platforms = await self._read_manifest()
        # (4) to (9) What is signed, and by whom.
        index = await self._signed(digest)
        # (10) The platforms.
        await self._bind_platforms(index, platforms)
        # (11) The attestations.
        await self._require_attestations(platforms)
        # (12) The verdict.
        self._hold(12, f"vouched for by {', '.join(self.evidence[0].by)}")
        return tuple(self.evidence)

    def _require_digest(self) -> str:
        if self._image.digest is None:
            message = "it is named by tag, and only a digest can be verified"
            raise self._refuse(Rejected(Reason.NO_DIGEST, message, step=1))
        self._hold(1, self._image.digest)
        return self._image.digest

    def _require_authorities(self) -> None:
        able = [authority.name for authority in self._demand.authorities if authority.can_vouch]
        if not able:
            message = "no key and no identity is configured that could vouch for it"
            raise self._refuse(Rejected(Reason.NO_AUTHORITY, message, step=2))
        self._hold(2, f"{self._demand.threshold} of {', '.join(able)}")

    async def _read_manifest(self) -> tuple[Descriptor, ...]:
        try:
            manifest, children = await read_image(self._client, self._image)
        except FormatError as error:
            raise self._refuse(Rejected(Reason.AMBIGUOUS_MANIFEST, str(error), step=3)) from None
        self._hold(3, f"{manifest.descriptor.media_type}, {len(manifest.body)} bytes")
        return children

    async def _signed(self, digest: str) -> Evidence:
        evidence, rejected = await self._digests.verify(digest)
        self.evidence.append(evidence)
        if rejected is not None:
            raise self._refuse(replace(rejected, step=9))  # what fell earlier stands there already
        return evidence

    async def _bind_platforms(self, index: Evidence, children: Sequence[Descriptor]) -> None:
        if not self._demand.platforms_signed:
            self.evidence += [
                Evidence(one.digest, index.by, platform=_platform(one), listed_in=index.digest)
                for one in children
            ]
            self._hold(10, f"{len(children)} listed in the signed bytes" if children else "there is one only")
            return
        common = set(index.by)
        for child in runnable_platforms(children):
            own, rejected = await self._digests.verify(child.digest)
            self.evidence.append(replace(own, platform=_platform(child)))
            common &= set(own.by)
            rejected = rejected or self._lacking(common)
            if rejected is not None:
                where = f"its platform {_platform(child)} ({child.digest}) does not verify"
                message = f"{where}: {rejected.message}"
                raise self._refuse(Rejected(Reason.PLATFORM_UNSIGNED, message, step=10))
        self.evidence[0] = replace(index, by=tuple(name for name in index.by if name in common))
        self._hold(10, f"{len(self.evidence) - 1} signed themselves")

    def _lacking(self, common: set[str]) -> Rejected | None:
        """Those who signed all digests so far must suffice, each for its own word about all of them."""
        for evidence in self.evidence:
            rejected = judge_signers(evidence, self._demand, common)
            if rejected is not None:
                message = "it is signed by other authorities than the index"
                return Rejected(Reason.PLATFORM_UNSIGNED, message, step=10)
        return None

    async def _require_attestations(self, children: Sequence[Descriptor]) -> None:
        wanted = self._demand.attestations
        if not wanted:
            self.steps.append(Step(11, CHECKED[11], Outcome.NOT_ASKED))
            return
        async with PredicateChecks() as checks:
            # About the image itself; else about each of its platforms.
            top = await self._search_attestations(self.evidence[0].digest, wanted, checks)
            if not top.missing:
                return
            platforms = runnable_platforms(children)
            if not platforms:
                raise self._refuse(top.missing[0][1])
            left = tuple(one for one, _ in top.missing)
            for child in platforms:
                found = await self._search_attestations(child.digest, left, checks)
                if found.missing:
                    wanted_still, why = found.missing[0]
                    raise self._refuse(self._most_telling(dict(top.missing)[wanted_still], child, why))

    def _most_telling(self, of_index: Rejected, child: Descriptor, of_child: Rejected) -> Rejected:
        """Choose between why the index lacks an attestation and why its platform does."""
        some_platform_has_it = any(one.attestations for one in self.evidence[1:])
        nothing_here = of_child.message.endswith(NOTHING_FOUND)
        if of_index.reason is Reason.ATTESTATION_CHECK_FAILED or (nothing_here and not some_platform_has_it):
            return of_index
        where = f"its platform {_platform(child)} ({child.digest})"
        return replace(of_child, message=f"of {where}, {of_child.message}")

    async def _search_attestations(
        self, digest: str, wanted: Sequence[WantedAttestation], checks: PredicateChecks
    ) -> Result:
        found = await self._attestations.search(digest, wanted, checks)
        for one in found.attested:
            detail = f'"{one.name}" by {", ".join(one.authorities)} ({one.key}), about {digest}'
            self._hold(11, f"{detail}, stored as {one.source}")
        self.evidence = [
            replace(one, attestations=(*one.attestations, *found.attested)) if one.digest == digest else one
            for one in self.evidence
        ]
        return found

    def _hold(self, number: int, detail: str) -> None:
        self.steps.append(Step(number, CHECKED[number], Outcome.HOLDS, detail))

    def _refuse(self, why: Rejected) -> _Refused:
        self.steps.append(Step(why.step, CHECKED[why.step], Outcome.FAILS, why.message))
        return _Refused(why)


def _platform(descriptor: Descriptor) -> str:
    return str(descriptor.platform or "unknown")
