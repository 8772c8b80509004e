"""TrustPolicy: who must have vouched for an image before it may run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, list_map, rules
from edgemodel_operator.api.trustpolicy_status import TrustPolicyStatus

Glob = Annotated[str, Field(min_length=1, max_length=255)]
AuthorityName = Annotated[str, Field(min_length=1, max_length=63)]


class SecretKey(Schema):
    """A Secret in the operator's own namespace, laid out as `cosign generate-key-pair k8s://` does."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The name of the Secret; its key `cosign.pub` is used."""


class PublicKey(Schema):
    """A public key: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.data) != has(self.secretRef)",
                "give the key once: either the PEM text in `data` or a Secret in `secretRef`",
            )
        )
    )

    data: Annotated[
        str | None,
        Field(
            max_length=8192,
            pattern=r"^-----BEGIN PUBLIC KEY-----",
            json_schema_extra=rules(
                (
                    "self.startsWith('-----BEGIN PUBLIC KEY-----')",
                    "data must be a public key in PEM form, beginning with -----BEGIN PUBLIC KEY-----",
                )
            ),
        ),
    ] = None
    """The key in PEM form."""
    secret_ref: SecretKey | None = None
    """The Secret that holds it."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if (self.data is None) == (self.secret_ref is None):
            raise ValueError("give the key once: `data` or `secretRef`")
        return self


class TrustedRoot(Schema):
    """A ConfigMap in the operator's own namespace with a Sigstore trusted root: nothing is fetched."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The name of the ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "trusted_root.json"
    """Which of its entries is the trusted root, as `cosign trusted-root create` writes it."""


class Keyless(Schema):
    """An identity in a short-lived certificate, as a CI system gets one for its own token."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.issuer) != has(self.issuerRegExp)",
                "name the issuer once: exactly in `issuer`, or as a pattern in `issuerRegExp`",
            ),
            (
                "has(self.subject) != has(self.subjectRegExp)",
                "name the subject once: exactly in `subject`, or as a pattern in `subjectRegExp`",
            ),
        )
    )

    issuer: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """The issuer of the identity, for example `https://ci.plant-a.local`."""
    issuer_reg_exp: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """A pattern (RE2 syntax) that the whole issuer must match."""
    subject: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """The identity: a mail address or a URI, as the certificate names it."""
    subject_reg_exp: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """A pattern (RE2 syntax) that the whole identity must match."""
    trusted_root: TrustedRoot
    """The certificate authorities and logs that count."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if (self.issuer is None) == (self.issuer_reg_exp is None):
            raise ValueError("name the issuer once: `issuer` or `issuerRegExp`")
        if (self.subject is None) == (self.subject_reg_exp is None):
            raise ValueError("name the subject once: `subject` or `subjectRegExp`")
        return self


class Authority(Schema):
    """Somebody whose word counts: the holder of a key, or an identity."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(size(self.keys) > 0) != has(self.keyless)",
                "say how the authority is known: either by `keys` or as `keyless` identity",
            )
        )
    )

    name: AuthorityName
    """A name for messages and metrics."""
    keys: Annotated[tuple[PublicKey, ...], Field(max_length=8)] = ()
    """Its public keys; a signature with any one of them is its word. During a rotation these are two."""
    keyless: Keyless | None = None
    """Its identity, where it has no key of its own."""
    required: bool = False
    """Without its word the policy does not hold, whoever else vouches."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if bool(self.keys) == (self.keyless is not None):
            raise ValueError("say how the authority is known: `keys` or `keyless`")
        return self


class PredicateCheck(Schema):
    """One thing that must be true of what is attested."""

    expression: Annotated[str, Field(min_length=1, max_length=4096)]
    """A CEL expression over `predicate`, the attested document; it must give `true`. An error is a no."""
    message: Annotated[str, Field(min_length=1, max_length=512)]
    """What is said when it does not."""


class RequiredAttestation(Schema):
    """A signed statement about the image that must be there: its origin, its contents, a test result.

    It counts when it is about the image itself or, of an index, when each of its platforms has one.
    """

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """A name for messages."""
    predicate_type: Annotated[
        str,
        Field(
            max_length=512,
            pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:",
            json_schema_extra=rules(
                (
                    "self.matches('^[A-Za-z][A-Za-z0-9+.-]*:')",
                    "predicateType must be a URI, for example https://slsa.dev/provenance/v1",
                )
            ),
        ),
    ]
    """What kind of statement, as a URI: `https://slsa.dev/provenance/v1`, `https://spdx.dev/Document`,
    `https://cyclonedx.org/bom` …"""
    authorities: Annotated[tuple[AuthorityName, ...], Field(max_length=16)] = ()
    """Which of the policy's authorities may have signed it; none named: any of them."""
    checks: Annotated[tuple[PredicateCheck, ...], Field(max_length=16)] = ()
    """What must be true of it: all of these, of one and the same statement."""


class Mode(StrEnum):
    """What follows when an image is not vouched for."""

    ENFORCE = "Enforce"
    AUDIT = "Audit"


class TrustPolicySpec(Schema):
    """Which images need whose word. Every policy that matches an image must hold."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.threshold <= size(self.authorities)",
                "threshold asks for more authorities than the policy names: it could never hold",
            ),
            (
                (
                    "self.attestations.all(one, one.authorities.all(name, "
                    "self.authorities.exists(authority, authority.name == name)))"
                ),
                "an attestation names an authority that is not among `authorities`",
            ),
        )
    )

    images: Annotated[
        tuple[Glob, ...],
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra=rules(
                (
                    "size(self) > 0",
                    'name at least one image glob, for example ["registry.plant-a.local:5000/models/*"]',
                )
            ),
        ),
    ]
    """Globs over `host[:port]/repository`: `*` stays within one path segment, `**` does not."""
    authorities: Annotated[
        tuple[Authority, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra=list_map("name")
            | rules(("size(self) > 0", "name at least one authority: a policy without one could never hold")),
        ),
    ]
    """Whose signature counts."""
    threshold: Annotated[int, Field(ge=1, le=16)] = 1
    """How many different authorities must have signed the image. One key counts once, whatever its names."""
    attestations: Annotated[
        tuple[RequiredAttestation, ...], Field(max_length=16, json_schema_extra=list_map("name"))
    ] = ()
    """Signed statements that must be there besides: all of them."""
    accept_copies: bool = False
    """Accept signatures that name another repository, or none: for images that were copied together with
    their signatures. Else a signature counts only in the repository for which it was made."""
    namespaces: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...], Field(max_length=64)
    ] = ()
    """Globs over the namespaces of the pods. Empty: all."""
    mode: Mode = Mode.ENFORCE
    """Enforce: refuse. Audit: admit with a warning."""

    @model_validator(mode="after")
    def _require_what_can_hold(self) -> Self:
        names = {authority.name for authority in self.authorities}
        if self.threshold > len(names):
            raise ValueError("threshold asks for more authorities than the policy names")
        for attestation in self.attestations:
            if not names.issuperset(attestation.authorities):
                raise ValueError(f"attestation {attestation.name!r} names an authority that the policy lacks")
        return self


class TrustPolicy(Schema):
    """Who must have vouched for an image before it may run."""

    spec: TrustPolicySpec
    """Which images need whose word."""
    status: TrustPolicyStatus = TrustPolicyStatus()
    """What runs now and is covered by the policy, as the last audit saw it."""
