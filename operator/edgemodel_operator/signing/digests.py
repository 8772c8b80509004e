"""Verify one digest: steps 4 to 9 of the procedure that `verify` writes down."""

from __future__ import annotations

import asyncio
from collections import Counter

from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.demand import Demand
from edgemodel_operator.signing.judge import Candidate, Wanted, judge_digest, judge_signature
from edgemodel_operator.signing.stored import Found, read_signatures
from edgemodel_operator.signing.verdict import (
    CHECKED,
    Evidence,
    Format,
    Outcome,
    Rejected,
    Step,
    Vouching,
)


class DigestVerification:
    """Verifies digests of one image. What it looks at is written to `steps`."""

    def __init__(self, client: RegistryClient, image: Reference, demand: Demand, steps: list[Step]) -> None:
        self._client = client
        self._image = image
        self._demand = demand
        self._steps = steps

    async def verify(self, digest: str) -> tuple[Evidence, Rejected | None]:
        """Say who signed a digest, and what that lacks of the demand, if something.

        Raises `RegistryError` when it lacks something that the registry failed to deliver.
        """
        everybody = {authority.name for authority in self._demand.authorities if authority.can_vouch}
        findings: list[Vouching | Rejected] = []
        errors: list[RegistryError] = []
        unreadable = 0
        for kind in (Format.LEGACY, Format.BUNDLE):
            # (4) Read, and go on to the next format as long as somebody's signature is still missing.
            found = await self._read(digest, kind)
            errors += found.errors
            unreadable += found.unreadable
            # (5) to (8) Each object by itself.
            findings += await self._judge(found.candidates, digest)
            # (9) All together.
            evidence, rejected = judge_digest(findings, unreadable, digest, self._demand)
            if rejected is None and everybody <= set(evidence.by):
                break
        evidence, rejected = judge_digest(findings, unreadable, digest, self._demand)
        if rejected is not None and errors:
            raise errors[0]
        self._write_down(findings, unreadable, digest, holds=rejected is None)
        return evidence, rejected

    async def _read(self, digest: str, kind: Format) -> Found:
        try:
            return await read_signatures(self._client, self._image, digest, kind)
        except RegistryError as error:
            return Found(errors=(error,))

    async def _judge(self, candidates: tuple[Candidate, ...], digest: str) -> list[Vouching | Rejected]:
        """Weigh candidates in a thread: a hundred of them times a hundred keys are seconds of arithmetic."""
        wanted = Wanted(self._image.name, digest, self._demand.any_repository)
        authorities = self._demand.authorities
        return await asyncio.to_thread(
            lambda: [judge_signature(one, wanted, authorities) for one in candidates]
        )

    def _write_down(
        self, findings: list[Vouching | Rejected], unreadable: int, digest: str, *, holds: bool
    ) -> None:
        objects = len(findings) + unreadable
        self._step(4, Outcome.HOLDS, f"{objects} objects beside {digest}, {unreadable} of them unusable")
        rejected = Counter(one for one in findings if isinstance(one, Rejected))
        for one, times in rejected.items():
            self._step(one.step, Outcome.IGNORED, f"{one.message} ({times} times)")
        for vouching in (one for one in findings if isinstance(one, Vouching)):
            by = f"{vouching.format} signature by {', '.join(vouching.authorities)} ({vouching.key})"
            where = "this repository" if vouching.binds_repository else "any repository"
            detail = f"{by}, for this digest and {where}, stored as {vouching.source}"
            self._step(8, Outcome.HOLDS, detail)
        if holds:
            self._step(9, Outcome.HOLDS, digest)

    def _step(self, number: int, outcome: Outcome, detail: str) -> None:
        self._steps.append(Step(number, CHECKED[number], outcome, detail))
