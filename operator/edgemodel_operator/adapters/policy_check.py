"""What is wrong with a TrustPolicy beyond its schema: keys, patterns, expressions that could never work."""

from __future__ import annotations

from collections.abc import Iterator

from edgemodel_operator.api.trustpolicy import Authority, Keyless, RequiredAttestation, TrustPolicySpec
from edgemodel_operator.signing.errors import BadExpression, BadIdentity, KeyLoadError
from edgemodel_operator.signing.expressions import check_expression
from edgemodel_operator.signing.keyless import check_names
from edgemodel_operator.signing.keys import load_public_key
from edgemodel_operator.signing.threshold import different_authorities, unmatched_authorities


def check_policy(spec: TrustPolicySpec) -> tuple[str, ...]:
    """Give a sentence for each thing that cannot work, none if all can. No I/O: Secrets are not looked at.

    Meant for when a policy is applied: one that got past is no danger, since its images are then refused.
    """
    return (
        *(text for authority in spec.authorities for text in _check_authority(authority)),
        *(text for attestation in spec.attestations for text in _check_attestation(attestation)),
        *_check_threshold(spec),
    )


def _check_authority(authority: Authority) -> Iterator[str]:
    where = f'authority "{authority.name}"'
    for number, key in enumerate(authority.keys):
        if key.data is not None:
            try:
                load_public_key(key.data.encode())
            except KeyLoadError as error:
                yield f"{where}: keys[{number}] cannot be used: {error}"
    if authority.keyless is not None:
        yield from _check_keyless(authority.keyless, where)


def _check_keyless(keyless: Keyless, where: str) -> Iterator[str]:
    try:
        check_names(
            issuer=keyless.issuer,
            issuer_reg_exp=keyless.issuer_reg_exp,
            subject=keyless.subject,
            subject_reg_exp=keyless.subject_reg_exp,
        )
    except BadIdentity as error:
        yield f"{where}: {error}"


def _check_attestation(attestation: RequiredAttestation) -> Iterator[str]:
    for number, check in enumerate(attestation.checks):
        try:
            check_expression(check.expression)
        except BadExpression as error:
            where = f'attestation "{attestation.name}": checks[{number}]'
            yield f"{where} {check.expression[:128]!r} cannot be used: {error}"


def _check_threshold(spec: TrustPolicySpec) -> Iterator[str]:
    """One key counts once, whatever its names: with too few different ones the policy could never hold."""
    signers: dict[str, set[str]] = {}
    for authority in spec.authorities:
        for known_by in _known_by(authority):
            signers.setdefault(known_by, set()).add(authority.name)
    count = different_authorities(signers)
    if count < spec.threshold:
        yield (
            f"threshold asks for {spec.threshold} different authorities, but by the keys given here no more "
            f"than {count} can be told apart: give each a key of its own"
        )
    required = frozenset(authority.name for authority in spec.authorities if authority.required)
    for name in sorted(unmatched_authorities(signers, required)):
        yield f'authority "{name}" is required, but another that is required too has the same key'


def _known_by(authority: Authority) -> Iterator[str]:
    """Give what tells an authority from others: its keys as far as they can be read here, or their names."""
    if authority.keyless is not None:
        yield f"identity {authority.keyless.model_dump_json()}"
    for key in authority.keys:
        if key.data is not None:
            yield f"key {_fingerprint(key.data)}"
        elif key.secret_ref is not None:
            yield f"Secret {key.secret_ref.name}"


def _fingerprint(pem: str) -> str:
    try:
        return load_public_key(pem.encode()).fingerprint
    except KeyLoadError:
        return pem
