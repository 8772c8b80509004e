"""Whom a keyless bundle is by: real certificates, logs and signatures, of a site that lives in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel_operator.signing.errors import BadIdentity
from edgemodel_operator.signing.keyless import KeylessIdentity, load_identity
from edgemodel_operator.signing.keyless_bundle import OTHER_NAME_OID
from support.sigstore_forger import (
    GOOD,
    OTHER_STATEMENT,
    SITE,
    STATEMENT,
    Impostor,
    changed,
    entry,
    identity_of,
    material,
    refusal,
)
from support.sigstore_offline import Offline, verify_offline
from support.sigstore_site import ISSUER, SUBJECT, Authority, Change, Log, Site, b64, new_key


@pytest.fixture(scope="module")
def identity() -> KeylessIdentity:
    return identity_of(SITE)


def test_a_bundle_by_the_identity_is_verified(identity: KeylessIdentity) -> None:
    assert refusal(identity, GOOD) == ""


def test_the_name_tells_whom_and_by_which_root(identity: KeylessIdentity) -> None:
    other_root = identity_of(Site())
    pattern = load_identity(SITE.trusted_root(), issuer=ISSUER, subject_reg_exp=SUBJECT)
    assert SUBJECT in identity.name
    assert ISSUER in identity.name
    assert len({identity.name, other_root.name, pattern.name}) == 3
    assert identity == identity_of(SITE)


def test_another_issuer_does_not_count() -> None:
    identity = load_identity(SITE.trusted_root(), issuer=f"{ISSUER}/", subject=SUBJECT)
    assert "is by 'https://ci.plant-a.local'" in refusal(identity, GOOD)


def test_another_subject_does_not_count() -> None:
    identity = load_identity(SITE.trusted_root(), issuer=ISSUER, subject=SUBJECT.upper())
    assert f"names '{SUBJECT}'" in refusal(identity, GOOD)


@pytest.mark.parametrize(
    ("pattern", "counts"),
    [
        (r"https://ci\.plant-a\.local/models/.*@refs/heads/main", True),
        (r"https://ci\.plant-a\.local/models/.*", True),
        (r"https://ci\.plant-a\.local/models/", False),
        (r"refs/heads/main", False),
        (r"https://ci\.plant-a\.local/models/|x", False),
        (r"x|.*@refs/heads/main", True),
        (r"(?m)^https://.*", True),
        (r"(h+t+t+p+s*)*[^!]*!", False),
    ],
)
def test_a_pattern_must_match_the_whole_subject(pattern: str, *, counts: bool) -> None:
    identity = load_identity(SITE.trusted_root(), issuer_reg_exp="https://ci[.].*", subject_reg_exp=pattern)
    assert identity.verifies(json.dumps(GOOD).encode()) is counts


def test_a_pattern_does_not_end_before_a_line_break() -> None:
    key = new_key()
    names = (x509.UniformResourceIdentifier(f"{SUBJECT}\n"),)
    bundle = SITE.bundle(STATEMENT, key=key, certificate=SITE.certificate(key, names=names))
    identity = load_identity(SITE.trusted_root(), issuer=ISSUER, subject_reg_exp="https://[^ ]*main$")
    assert refusal(identity, bundle)


def test_a_costly_pattern_on_a_long_subject_ends() -> None:
    # Python's own engine would not come back from this one.
    key = new_key()
    names = (x509.UniformResourceIdentifier("a" * 2000),)
    bundle = SITE.bundle(STATEMENT, key=key, certificate=SITE.certificate(key, names=names))
    identity = load_identity(SITE.trusted_root(), issuer=ISSUER, subject_reg_exp="(a|aa|a*)*b")
    assert "names 'aaaa" in refusal(identity, bundle)


def _other_name(text: str) -> x509.OtherName:
    return x509.OtherName(x509.ObjectIdentifier(OTHER_NAME_OID), asn1.encode_der(text))


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        (x509.RFC822Name("press@plant-a.local"), "press@plant-a.local"),
        (x509.UniformResourceIdentifier("spiffe://plant-a.local/press"), "spiffe://plant-a.local/press"),
        (_other_name("press!plant-a"), "press!plant-a"),
    ],
)
def test_subjects_are_addresses_or_uris_or_names_of_the_issuer(name: x509.GeneralName, subject: str) -> None:
    key = new_key()
    bundle = SITE.bundle(STATEMENT, key=key, certificate=SITE.certificate(key, names=(name,)))
    identity = load_identity(SITE.trusted_root(), issuer=ISSUER, subject=subject)
    assert refusal(identity, bundle) == ""


@pytest.mark.parametrize(
    "names",
    [
        (x509.UniformResourceIdentifier(SUBJECT), x509.RFC822Name("press@plant-a.local")),
        (x509.DNSName("plant-a.local"),),
        (x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), asn1.encode_der(SUBJECT)),),
    ],
)
def test_a_certificate_that_names_several_or_a_machine_is_refused(
    names: tuple[x509.GeneralName, ...],
) -> None:
    key = new_key()
    bundle = SITE.bundle(STATEMENT, key=key, certificate=SITE.certificate(key, names=names))
    anybody = load_identity(SITE.trusted_root(), issuer_reg_exp=".*", subject_reg_exp=".*")
    assert refusal(anybody, bundle)


def test_a_certificate_that_names_two_issuers_is_refused() -> None:
    key = new_key()
    certificate = SITE.certificate(key, plain_issuer="https://elsewhere.plant-a.local")
    bundle = SITE.bundle(STATEMENT, key=key, certificate=certificate)
    anybody = load_identity(SITE.trusted_root(), issuer_reg_exp=".*", subject_reg_exp=".*")
    assert "2 issuers" in refusal(anybody, bundle)


def test_a_certificate_under_another_root_does_not_count(identity: KeylessIdentity) -> None:
    forger = replace(SITE, authority=Authority())
    assert "certificate chain" in refusal(identity, forger.bundle(STATEMENT))


def test_a_certificate_for_another_use_does_not_count(identity: KeylessIdentity) -> None:
    key = new_key()
    certificate = SITE.certificate(key, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    assert "code signing" in refusal(identity, SITE.bundle(STATEMENT, key=key, certificate=certificate))


def test_a_certificate_must_stand_in_a_certificate_log_of_the_root(identity: KeylessIdentity) -> None:
    unlogged = replace(SITE, certificate_log=Log())
    assert "certificate transparency log" in refusal(identity, unlogged.bundle(STATEMENT))
    forged = replace(SITE, certificate_log=Impostor(SITE.certificate_log.id))
    assert "SCT" in refusal(identity, forged.bundle(STATEMENT))


def test_another_key_than_the_certificates_does_not_count(identity: KeylessIdentity) -> None:
    certificate = SITE.certificate(new_key())
    assert "signature" in refusal(identity, SITE.bundle(STATEMENT, certificate=certificate, key=new_key()))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(
            verificationMaterial={"publicKey": {"hint": "x"}, "tlogEntries": [entry(one)]}
        ),
        lambda one: material(one).update(publicKey={"hint": "x"}),
        lambda one: material(one).update(
            x509CertificateChain={"certificates": [material(one)["certificate"]] * 2}
        ),
        lambda one: material(one).update(
            x509CertificateChain={"certificates": [material(one).pop("certificate")]}
        ),
        lambda one: material(one).update(tlog_entries=[entry(one)]),
        lambda one: one.update(messageSignature={"signature": "eA=="}),
        lambda one: one.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.2"),
        lambda one: one.pop("dsseEnvelope"),
        lambda one: one["dsseEnvelope"]["signatures"].append(one["dsseEnvelope"]["signatures"][0]),
        lambda one: one["dsseEnvelope"].update(signatures=[]),
        lambda one: one["dsseEnvelope"].update(payload=b64(OTHER_STATEMENT)),
        lambda one: one["dsseEnvelope"].update(payload=" " + one["dsseEnvelope"]["payload"]),
        lambda one: one["dsseEnvelope"].update(payloadType="application/vnd.in-toto+xml"),
        lambda one: one["dsseEnvelope"]["signatures"][0].update(sig=b64(b"x")),
    ],
)
def test_a_bundle_of_another_shape_or_content_is_refused(identity: KeylessIdentity, change: Change) -> None:
    assert refusal(identity, changed(GOOD, change))


def test_a_bundle_with_a_member_twice_is_refused(identity: KeylessIdentity) -> None:
    text = json.dumps(GOOD)
    assert "strict JSON" in identity.refusal(
        text.replace("{", f'{{"dsseEnvelope": {{}}, {text[1:]}', 1).encode()
    )


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_changed_bytes_are_refused_or_mean_the_same(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(GOOD).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where : where + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    if identity_of(SITE).verifies(bytes(raw)):
        assert json.loads(raw)["dsseEnvelope"] == GOOD["dsseEnvelope"]


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
@settings(max_examples=100, deadline=None)
def test_other_bytes_are_refused_with_a_reason(data: bytes) -> None:
    assert identity_of(SITE).refusal(data)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"issuer": ISSUER}, "name the subject once"),
        ({"subject": SUBJECT}, "name the issuer once"),
        ({"issuer": ISSUER, "issuer_reg_exp": ".*", "subject": SUBJECT}, "name the issuer once"),
        ({"issuer": ISSUER, "subject": ""}, "the subject is empty"),
        ({"issuer": ISSUER, "subject_reg_exp": ""}, "1 to 512 characters"),
        ({"issuer": ISSUER, "subject_reg_exp": "a" * 513}, "1 to 512 characters"),
        ({"issuer": ISSUER, "subject_reg_exp": "(a"}, "no regular expression"),
        ({"issuer": ISSUER, "subject_reg_exp": "a)|(b"}, "no regular expression"),
        ({"issuer": ISSUER, "subject_reg_exp": "(?=a)"}, "no regular expression"),
        ({"issuer": ISSUER, "subject_reg_exp": "((a{999}){999}){999}"}, "no regular expression"),
        ({"issuer_reg_exp": "[", "subject": SUBJECT}, "for the issuer"),
    ],
)
def test_an_identity_that_cannot_be_meant_is_refused(names: dict[str, str], said: str) -> None:
    load: Callable[..., KeylessIdentity] = load_identity
    with pytest.raises(BadIdentity, match=said):
        load(SITE.trusted_root(), **names)


def test_case_18_verifying_asks_no_network_and_no_name_server(tmp_path: Path) -> None:
    bundle = json.dumps(GOOD).encode()
    assert verify_offline(tmp_path, SITE.trusted_root(), ISSUER, SUBJECT, bundle) == Offline("", ())
    # Nor is a cache begun that somebody would have to renew.
    assert list(tmp_path.iterdir()) == []
