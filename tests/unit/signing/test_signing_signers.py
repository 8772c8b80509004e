"""Who made a signature, and whether those who did suffice: keys, identities, thresholds."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel_operator.signing import simple_signing
from edgemodel_operator.signing.certificate import certificate_identity
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.errors import KeyLoadError
from edgemodel_operator.signing.judge import (
    Candidate,
    Wanted,
    find_signer,
    judge_digest,
    judge_signature,
    judge_signers,
)
from edgemodel_operator.signing.keys import LocalKey, PublicKey, load_public_key
from edgemodel_operator.signing.verdict import Evidence, Format, Reason, Rejected, Vouching

REPOSITORY, DIGEST = "registry.example.com/models/a", "sha256:" + "ab" * 32
SOURCE = "sha256:" + "ef" * 32
WANTED = Wanted(REPOSITORY, DIGEST)
PAYLOAD = simple_signing.make_payload(REPOSITORY, DIGEST)
P256, P384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA3072 = rsa.generate_private_key(65537, 3072)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256 (FIPS 186-4, D.1.2.3)."""


def public(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> PublicKey:
    return LocalKey(key).public_key


def legacy(signature: bytes, payload: bytes = PAYLOAD) -> Candidate:
    return Candidate(Format.LEGACY, SOURCE, signature, payload, payload)


def counts(signature: bytes, key: PublicKey) -> bool:
    return isinstance(judge_signature(legacy(signature), WANTED, [Authority("plant", (key,))]), Vouching)


@pytest.mark.parametrize(
    ("key", "signature"),
    [
        (public(P256), P256.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))),
        (public(P384), P384.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))),
        (public(ED25519), ED25519.sign(PAYLOAD)),
        (public(RSA3072), RSA3072.sign(PAYLOAD, padding.PKCS1v15(), hashes.SHA256())),
    ],
)
def test_case_14_the_algorithm_is_that_of_the_key(key: PublicKey, signature: bytes) -> None:
    assert counts(signature, key)
    assert not counts(signature[:-1] + bytes([signature[-1] ^ 1]), key)


@pytest.mark.parametrize(
    ("key", "signature"),
    [
        (public(P256), P256.sign(PAYLOAD, ec.ECDSA(hashes.SHA384()))),
        (public(P384), P384.sign(PAYLOAD, ec.ECDSA(hashes.SHA384()))),
        (
            public(RSA3072),
            RSA3072.sign(PAYLOAD, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
        ),
        (public(RSA3072), RSA3072.sign(PAYLOAD, padding.PKCS1v15(), hashes.SHA384())),
        (public(RSA3072), RSA3072.sign(PAYLOAD, padding.PKCS1v15(), hashes.SHA1())),  # noqa: S303
        (public(ED25519), P256.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))),
    ],
)
def test_case_14_no_other_algorithm_counts(key: PublicKey, signature: bytes) -> None:
    assert not counts(signature, key)


def test_case_14_small_rsa_keys_and_other_curves_are_no_keys_here() -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP521R1())):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(KeyLoadError):
            load_public_key(pem)


def test_case_01_truncated_and_padded_signatures_do_not_count() -> None:
    good = P256.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))
    key = public(P256)
    assert counts(good, key)
    for bad in (b"", good[:-1], good[:10], good + b"\0", b"0" + good, base64.b64encode(good), b"\0" * 70):
        assert not counts(bad, key)


def test_case_01_the_mirrored_signature_of_the_same_signer_is_no_second_one() -> None:
    # Of every ECDSA signature (r, s) anybody can make the equally valid (r, n - s).
    good = P256.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(good)
    both = [legacy(good), legacy(encode_dss_signature(r, ORDER - s))]
    authorities = (Authority("plant", (public(P256),)),)
    found = [judge_signature(one, WANTED, authorities) for one in both]
    assert all(isinstance(one, Vouching) for one in found)
    _, rejected = judge_digest(found, 0, DIGEST, Demand((*authorities, Authority("qa")), threshold=2))
    assert rejected is not None
    assert rejected.reason is Reason.TOO_FEW_AUTHORITIES


async def vouchings(demand: Demand, *keys: LocalKey) -> list[Vouching | Rejected]:
    return [judge_signature(legacy(await key.sign(PAYLOAD)), WANTED, demand.authorities) for key in keys]


K1, K2, K3, K4 = (LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(4))
A, B, C = (Authority(name, (key.public_key,)) for name, key in (("a", K1), ("b", K2), ("c", K3)))
TWO_OF_THREE = Demand((A, B, C), threshold=2)


@pytest.mark.parametrize(
    ("demand", "keys", "want"),
    [
        (TWO_OF_THREE, [K1, K2], None),
        (TWO_OF_THREE, [K3, K1, K2], None),
        (TWO_OF_THREE, [K1], Reason.TOO_FEW_AUTHORITIES),
        (TWO_OF_THREE, [K1, K1], Reason.TOO_FEW_AUTHORITIES),
        (TWO_OF_THREE, [K1, K4], Reason.TOO_FEW_AUTHORITIES),
        (TWO_OF_THREE, [K4], Reason.UNKNOWN_KEY),
        (replace(TWO_OF_THREE, required=frozenset({"c"})), [K1, K2], Reason.REQUIRED_AUTHORITY_MISSING),
        (replace(TWO_OF_THREE, required=frozenset({"c"})), [K1, K3], None),
        # One person, two keys: one authority.
        (Demand((Authority("a", (K1.public_key, K4.public_key)), B), threshold=2), [K1, K4],
         Reason.TOO_FEW_AUTHORITIES),
        # One key under three names: one signer.
        (Demand((A, replace(A, name="x"), replace(A, name="y")), threshold=2), [K1],
         Reason.TOO_FEW_AUTHORITIES),
        (Demand((A, replace(A, name="x"), B), threshold=2), [K1, K2], None),
        # Nor does it stand for two that are both required.
        (Demand((A, replace(A, name="x")), required=frozenset({"a", "x"})), [K1],
         Reason.REQUIRED_AUTHORITY_MISSING),
        (Demand((A,), required=frozenset({"gone"})), [K1], Reason.REQUIRED_AUTHORITY_MISSING),
    ],
)  # fmt: skip
async def test_case_41_a_threshold_asks_for_different_authorities(
    demand: Demand, keys: list[LocalKey], want: Reason | None
) -> None:
    _, rejected = judge_digest(await vouchings(demand, *keys), 0, DIGEST, demand)
    assert (rejected.reason if rejected else None) is want


async def test_case_41_only_those_who_signed_everything_count_for_it() -> None:
    evidence, rejected = judge_digest(await vouchings(TWO_OF_THREE, K1, K2), 0, DIGEST, TWO_OF_THREE)
    assert rejected is None
    assert judge_signers(evidence, TWO_OF_THREE, {"a", "b", "c"}) is None
    assert judge_signers(evidence, TWO_OF_THREE, {"a"}) is not None


# Identities: the certificate says who, `Identity` says whether.


@dataclass(frozen=True)
class FakeIdentity:
    """Takes every bundle in `made` for one of its own."""

    name: str
    made: frozenset[bytes]
    asked: list[bytes] = field(default_factory=list, compare=False)

    def verifies(self, bundle: bytes) -> bool:
        self.asked.append(bundle)
        return bundle in self.made


def certificate_for(mail: str, issuer: str = "https://login.plant-a.local") -> bytes:
    """Make a certificate as Fulcio does, for the mail address, by whoever; a new key each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fulcio")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder(name, x509.Name([]), key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(minutes=10))
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(mail)]), critical=True)
    )
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
    extension = x509.UnrecognizedExtension(oid, b"\x0c" + bytes([len(issuer)]) + issuer.encode())
    certificate = builder.add_extension(extension, critical=False).sign(key, hashes.SHA256())
    return certificate.public_bytes(Encoding.DER)


def keyless(bundle: bytes, certificate: bytes) -> Candidate:
    return replace(legacy(b""), certificate=certificate, bundle=bundle)


def test_an_identity_vouches_for_its_own_bundles_and_keys_are_not_asked() -> None:
    ci = FakeIdentity("ci", frozenset({b"bundle"}))
    authorities = [Authority("plant", (K1.public_key,)), Authority("ci", (), (ci,))]
    signer = find_signer(keyless(b"bundle", certificate_for("ci@plant-a.local")), authorities)
    assert signer is not None
    assert signer.authorities == ("ci",)
    assert find_signer(keyless(b"other", certificate_for("ci@plant-a.local")), authorities) is None
    assert find_signer(replace(legacy(b"x"), bundle=b""), authorities) is None
    assert ci.asked == [b"bundle", b"other"]


def test_case_41_one_identity_counts_once_over_all_its_certificates_and_names() -> None:
    bundles = frozenset({b"1", b"2"})
    authorities = tuple(Authority(name, (), (FakeIdentity(name, bundles),)) for name in ("exact", "pattern"))
    demand = Demand(authorities, threshold=2)

    def rejected_with(*certificates: bytes) -> Rejected | None:
        signers = [
            find_signer(keyless(bundle, certificate), authorities)
            for bundle, certificate in zip((b"1", b"2"), certificates, strict=True)
        ]
        found = tuple(
            Vouching(Format.BUNDLE, SOURCE, one.authorities, one.key, True) for one in signers if one
        )
        return judge_signers(Evidence(DIGEST, ("exact", "pattern"), signatures=found), demand)

    same = rejected_with(certificate_for("a@plant.local"), certificate_for("a@plant.local"))
    assert same is not None
    assert same.reason is Reason.TOO_FEW_AUTHORITIES
    assert rejected_with(certificate_for("a@plant.local"), certificate_for("b@plant.local")) is None


def test_a_certificate_is_told_by_whom_it_names_and_who_says_so() -> None:
    one = certificate_identity(certificate_for("a@plant.local"))
    assert one == certificate_identity(certificate_for("a@plant.local"))
    assert one != certificate_identity(certificate_for("b@plant.local"))
    assert one != certificate_identity(certificate_for("a@plant.local", "https://other.local"))
    assert certificate_identity(b"no certificate") != certificate_identity(b"another")


# Whatever else is stored: junk never makes an image trusted, and never hides what is good.

JUNK_CHANGES: list[Callable[[Candidate], Candidate]] = [
    lambda one: replace(one, signature=b"junk"),
    lambda one: replace(one, signature=one.signature[:-1]),
    lambda one: replace(one, payload=one.payload + b" ", message=one.message + b" "),
    lambda one: replace(one, format=Format.BUNDLE),
    lambda one: replace(one, certificate=b"junk", bundle=b"junk"),
    lambda one: replace(one, payload=b"{}", message=b"{}", signature=b""),
]


@settings(max_examples=60, deadline=None)
@given(
    junk=st.lists(st.sampled_from(JUNK_CHANGES), max_size=6),
    raw=st.lists(st.tuples(st.binary(max_size=80), st.binary(max_size=200)), max_size=4),
    unreadable=st.integers(0, 3),
    good=st.booleans(),
    place=st.integers(0, 10),
)
def test_case_10_junk_makes_nothing_trusted_and_hides_nothing(
    junk: list[Callable[[Candidate], Candidate]],
    raw: list[tuple[bytes, bytes]],
    unreadable: int,
    good: bool,
    place: int,
) -> None:
    signature = P256.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))
    candidates = [change(legacy(signature)) for change in junk]
    candidates += [legacy(data, payload) for data, payload in raw]
    if good:
        candidates.insert(min(place, len(candidates)), legacy(signature))
    demand = Demand((Authority("plant", (public(P256), public(P384))),))
    found = [judge_signature(one, WANTED, demand.authorities) for one in candidates]
    evidence, rejected = judge_digest(found, unreadable, DIGEST, demand)
    assert (rejected is None) is good
    assert evidence.by == (("plant",) if good else ())
    assert evidence.ignored == len(candidates) - good + unreadable
