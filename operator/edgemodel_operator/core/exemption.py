"""TrustExceptions applied to an image: which one, if any, lets it run although policies do not hold.

One exception must cover every policy that refuses. Two that each cover a part do not add up: each was granted
with the other policies in mind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from edgemodel_operator.api.base import NotUnderstood, read_spec
from edgemodel_operator.api.trustexception import MAX_EXCEPTION_DAYS, TrustExceptionSpec
from edgemodel_operator.core.glob import glob_matches
from edgemodel_operator.oci.reference import InvalidReference, parse_reference


@dataclass(frozen=True)
class Exemption:
    """A TrustException object that was understood, from the operator's own namespace."""

    name: str
    spec: TrustExceptionSpec

    @property
    def sentence(self) -> str:
        """Say that it is the reason why an image runs."""
        return (
            f'admitted because TrustException "{self.name}" excuses it until {self.spec.expires}: '
            f"{self.spec.reason}"
        )

    def is_in_force(self, now: datetime) -> bool:
        """Tell whether it counts now: not past its end, and that end no further off than is allowed.

        The latter refuses what was stored while nobody looked at new objects.
        """
        return now < self.spec.end <= now + timedelta(days=MAX_EXCEPTION_DAYS)

    def covers(self, image: str, namespace: str | None, policies: AbstractSet[str]) -> bool:
        """Tell whether it excuses an image, in a namespace (None: in any), from all of these policies.

        No policies at all stand for "no policy matched": only an exception from everything covers that.
        """
        if self.spec.policies and not (policies and policies <= set(self.spec.policies)):
            return False
        in_scope = namespace is None or any(glob_matches(glob, namespace) for glob in self.spec.namespaces)
        return in_scope and any(
            glob_matches(glob, name) for glob in self.spec.images for name in _names(image)
        )


def parse_exemption(raw: Mapping[str, Any], namespace: str) -> Exemption | None:
    """Read a TrustException as the API server gives it; `namespace` is the operator's own.

    None for one that does not count: it lies elsewhere, or cannot be understood. Leaving an exception out is
    the safe side.
    """
    metadata = raw.get("metadata")
    if not isinstance(metadata, Mapping) or metadata.get("namespace") != namespace:
        return None
    try:
        spec = read_spec(TrustExceptionSpec, raw)
    except NotUnderstood:
        return None
    return Exemption(str(metadata.get("name", "")), spec)


def choose_exemption(
    exemptions: Iterable[Exemption],
    image: str,
    namespace: str | None,
    policies: AbstractSet[str],
    now: datetime,
) -> Exemption | None:
    """Give the exception that excuses an image from all of these policies, the first by name; None: none."""
    covering = (one for one in exemptions if one.is_in_force(now) and one.covers(image, namespace, policies))
    return min(covering, key=lambda one: one.name, default=None)


def _names(image: str) -> tuple[str, ...]:
    """Give what globs are held against: `host/repository`, and the same with the digest if it has one."""
    try:
        reference = parse_reference(image)
    except InvalidReference:
        return ()
    pinned = (f"{reference.name}@{reference.digest}",) if reference.digest else ()
    return (reference.name, *pinned)
