"""Look for the attestations that are asked for: step 11 of the procedure that `verify` writes down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from edgemodel_operator.oci.errors import NotFound, RegistryError, TooLarge
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attestations import (
    SignedStatement,
    judge_statement,
    match_attestation,
    missing_attestation,
)
from edgemodel_operator.signing.demand import Demand, WantedAttestation
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.predicates import PredicateChecks
from edgemodel_operator.signing.stored import Stored
from edgemodel_operator.signing.stored_attestations import list_statements, read_statement, turn
from edgemodel_operator.signing.verdict import Attested, Format, Reason, Rejected


@dataclass(frozen=True)
class Result:
    """What was found for one digest: attestations that are there, and why the others are not."""

    attested: tuple[Attested, ...]
    missing: tuple[tuple[WantedAttestation, Rejected], ...]


class AttestationSearch:
    """Searches beside digests of one image."""

    def __init__(self, client: RegistryClient, image: Reference, demand: Demand) -> None:
        self._client = client
        self._image = image
        self._authorities = demand.authorities

    async def search(
        self, digest: str, wanted: Sequence[WantedAttestation], checks: PredicateChecks
    ) -> Result:
        """Look for attestations about a digest, until all are found or nothing is left to read.

        Raises `RegistryError` when one is missing that the registry failed to deliver, and `CannotCheck`.
        """
        attested: dict[str, Attested] = {}
        rejected: dict[str, list[Rejected]] = {one.name: [] for one in wanted}
        errors: list[RegistryError] = []
        async with aclosing(self._statements(digest)) as statements:
            async for statement in statements:
                if isinstance(statement, RegistryError):
                    errors.append(statement)
                    continue
                for one in (one for one in wanted if one.name not in attested):
                    answer = await _answer(statement, one, checks)
                    if isinstance(answer, Attested):
                        attested[one.name] = answer
                    else:
                        rejected[one.name].append(answer)
                if len(attested) == len(wanted):
                    break
        missing = tuple(
            (one, missing_attestation(one, rejected[one.name])) for one in wanted if one.name not in attested
        )
        if missing and errors:
            raise errors[0]
        return Result(tuple(attested.values()), missing)

    async def _statements(
        self, digest: str
    ) -> AsyncGenerator[SignedStatement | Rejected | RegistryError, None]:
        """Give each statement beside a digest, judged, the small ones of each format first."""
        for kind in (Format.BUNDLE, Format.LEGACY):
            try:
                listing = await list_statements(self._client, self._image, digest, kind)
            except RegistryError as error:
                yield error
                continue
            for failed in listing.errors:
                yield failed
            for stored in listing.stored:
                # Whoever asks for the next one is done with this one: one is held at a time.
                async with turn(stored):
                    yield await self._statement(digest, stored, kind)
            if listing.left_out:
                where = f"{self._image.name}@{digest}"
                yield TooLarge(f"{where} has {listing.left_out} more objects attached than are read.")

    async def _statement(
        self, digest: str, stored: Stored, kind: Format
    ) -> SignedStatement | Rejected | RegistryError:
        try:
            candidate = await read_statement(self._client, self._image, stored, kind)
        except (NotFound, TooLarge, FormatError) as error:
            return Rejected(Reason.ATTESTATION_MISSING, f"an object is not usable: {error}", step=11)
        except RegistryError as error:
            return error
        if candidate is None:
            return Rejected(Reason.ATTESTATION_MISSING, "there is an object of another kind", step=11)
        return await asyncio.to_thread(judge_statement, candidate, digest, self._authorities)


async def _answer(
    statement: SignedStatement | Rejected, wanted: WantedAttestation, checks: PredicateChecks
) -> Attested | Rejected:
    if isinstance(statement, Rejected):
        return statement
    matched = match_attestation(statement, wanted)
    if isinstance(matched, Rejected):
        return matched
    failure = await checks.first_failure(wanted.checks, statement.candidate.payload)
    if failure is None:
        return matched
    return Rejected(Reason.ATTESTATION_CHECK_FAILED, failure, step=11)
