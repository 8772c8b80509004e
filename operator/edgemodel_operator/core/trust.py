"""Trust policies applied to an image: which of them speak about it, and what they say together.

The rule in one line: every policy that matches must hold, and an image that none matches is untrusted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeAlias

from edgemodel_operator.api.base import NotUnderstood, read_spec
from edgemodel_operator.api.trustpolicy import Mode, TrustPolicySpec
from edgemodel_operator.core.exemption import Exemption, choose_exemption
from edgemodel_operator.core.glob import glob_matches

EVERYTHING = ("**",)


@dataclass(frozen=True)
class Policy:
    """A TrustPolicy object that was understood."""

    name: str
    spec: TrustPolicySpec

    @cached_property
    def hash(self) -> str:
        """Name the content: two policies with the same spec give the same verdict about an image."""
        text = json.dumps(self.spec.to_raw(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class BrokenPolicy:
    """A TrustPolicy object that was not understood: no image that it may speak about can satisfy it.

    It has a field that is misspelt or of a newer version of the product, or was stored before its schema was
    tightened. Leaving it out would drop a requirement silently.
    """

    name: str
    images: tuple[str, ...]
    namespaces: tuple[str, ...]
    problem: str


AnyPolicy: TypeAlias = Policy | BrokenPolicy


@dataclass(frozen=True)
class PolicyVerdict:
    """What one policy says about one image.

    `missing` is the half sentence that tells what the image lacks, `reason` a CamelCase word for it; `by`
    says who vouched, each as `authority=key`.
    """

    policy: str
    mode: Mode
    trusted: bool
    missing: str = ""
    reason: str = ""
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """What all policies say about one image: `refusals` empty means that it may run.

    `exceptions` names the TrustException by which it may, if there is one.
    """

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the image may run."""
        return not self.refusals


def parse_policy(raw: Mapping[str, Any]) -> AnyPolicy:
    """Read a TrustPolicy as the API server gives it; what cannot be understood comes back as broken."""
    metadata = raw.get("metadata")
    name = str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""
    spec = raw.get("spec")
    try:
        return Policy(name, read_spec(TrustPolicySpec, raw))
    except NotUnderstood as error:
        problem = str(error)
    fields = spec if isinstance(spec, Mapping) else {}
    images = _globs(fields.get("images"))
    namespaces = _globs(fields.get("namespaces", EVERYTHING))
    return BrokenPolicy(name, images or EVERYTHING, namespaces or EVERYTHING, problem)


def matching_policies(policies: Iterable[AnyPolicy], image: str, namespace: str) -> tuple[AnyPolicy, ...]:
    """Choose the policies that speak about an image (`host[:port]/repository`) in a namespace, by name."""
    matching = (policy for policy in policies if _speaks_about(policy, image, namespace))
    return tuple(sorted(matching, key=lambda policy: policy.name))


def mode_of(policy: AnyPolicy) -> Mode:
    """Give what follows when the policy does not hold; one that was not understood is enforced."""
    return policy.spec.mode if isinstance(policy, Policy) else Mode.ENFORCE


def strictest_mode(policies: Sequence[AnyPolicy]) -> Mode:
    """Give Audit if all of the policies only audit, else Enforce; no policy at all means Enforce."""
    only_audit = bool(policies) and all(mode_of(policy) is Mode.AUDIT for policy in policies)
    return Mode.AUDIT if only_audit else Mode.ENFORCE


def judge(
    image: str,
    namespace: str | None,
    verdicts: Sequence[PolicyVerdict],
    exceptions: Sequence[Exemption] = (),
    now: datetime | None = None,
) -> Judgement:
    """Combine what every matching policy said about an image in a namespace.

    `namespace` is None where none is known, as when a node pulls: then an exception counts wherever it holds.
    No verdict means that no policy matched, and that refuses: silence is no trust. What is refused may be
    excused by one of `exceptions`, if that one covers every policy that refuses; without `now`, a time with
    its zone, none counts.
    """
    failed = [verdict for verdict in verdicts if not verdict.trusted]
    refusing = [verdict for verdict in failed if verdict.mode is Mode.ENFORCE]
    refusals = tuple(_sentence(image, verdict) for verdict in refusing)
    if not verdicts:
        refusals = (no_policy_sentence(image, namespace),)
    warnings = tuple(
        f"{_sentence(image, verdict)} (admitted because the policy is in Audit mode)"
        for verdict in failed
        if verdict.mode is Mode.AUDIT
    )
    if not refusals or now is None:
        return Judgement(refusals, warnings)
    names = frozenset(verdict.policy for verdict in refusing)
    exemption = choose_exemption(exceptions, image, namespace, names, now)
    if exemption is None:
        return Judgement(refusals, warnings)
    excused = tuple(f"{sentence} ({exemption.sentence})" for sentence in refusals)
    return Judgement(warnings=(*excused, *warnings), exceptions=(exemption.name,))


def no_policy_sentence(image: str, namespace: str | None) -> str:
    """Say that no policy speaks about an image, and what to do."""
    where = f" in namespace {namespace}" if namespace is not None else ""
    return (
        f"image {image} is not trusted: no TrustPolicy matches it{where}; "
        "add one whose spec.images covers it, or use an image that one covers"
    )


def _sentence(image: str, verdict: PolicyVerdict) -> str:
    return f'image {image} does not satisfy TrustPolicy "{verdict.policy}": {verdict.missing}'


def _speaks_about(policy: AnyPolicy, image: str, namespace: str) -> bool:
    source = policy.spec if isinstance(policy, Policy) else policy
    in_scope = not source.namespaces or any(glob_matches(glob, namespace) for glob in source.namespaces)
    return in_scope and any(glob_matches(glob, image) for glob in source.images)


def _globs(value: object) -> tuple[str, ...]:
    """Read globs out of a spec that is not valid as a whole; anything odd in them means everything."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return EVERYTHING
    return tuple(value)
