"""TrustException: an image that may run for a while although a TrustPolicy does not hold for it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, field_validator

from edgemodel_operator.api.base import Schema, rules
from edgemodel_operator.api.trustpolicy import Glob

MAX_EXCEPTION_DAYS = 90
"""The furthest that an exception may reach into the future: what needs longer is a policy."""


class TrustExceptionSpec(Schema):
    """Which images are excused from which policies, where, until when and why.

    One exception must excuse an image from every policy that refuses it: two do not add up.
    """

    images: Annotated[
        tuple[Glob, ...],
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra=rules(("size(self) > 0", "name at least one image glob")),
        ),
    ]
    """Globs over `host[:port]/repository`, or `host[:port]/repository@sha256:…` for one image alone."""
    namespaces: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...],
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra=rules(
                ("size(self) > 0", 'say where it applies, for example ["plant-a"]; ["*"] means everywhere')
            ),
        ),
    ]
    """Globs over the namespaces of the pods."""
    policies: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(max_length=64)
    ] = ()
    """The TrustPolicies that need not hold. Empty: all, also where no policy matches."""
    expires: Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
    """When it ends (RFC 3339, for example `2027-01-31T00:00:00Z`); at most 90 days ahead."""
    reason: Annotated[str, Field(min_length=8, max_length=512)]
    """Why, for whoever reads the audit trail."""

    @field_validator("expires")
    @classmethod
    def _require_time(cls, text: str) -> str:
        if parse_time(text) is None:
            raise ValueError("expires must be a time with its zone, for example 2027-01-31T00:00:00Z")
        return text

    @property
    def end(self) -> datetime:
        """When it ends."""
        end = parse_time(self.expires)
        if end is None:
            raise ValueError("expires is not a time")  # the validator has refused it before
        return end


class TrustException(Schema):
    """An image that may run for a while although a TrustPolicy does not hold. Counts in the operator's
    own namespace only."""

    spec: TrustExceptionSpec
    """Which images are excused from which policies, where, until when and why."""


def parse_time(text: str) -> datetime | None:
    """Read an RFC 3339 time with its zone; None where it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
