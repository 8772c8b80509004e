"""Who made a keyless bundle: with real certificates, logs and signatures, by a site that lives in memory."""

from __future__ import annotations

import base64
import copy
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from edgemodel_operator.signing.errors import BadIdentity, BadTrustedRoot, SigningError
from edgemodel_operator.signing.keyless import KeylessIdentity, load_identity
from edgemodel_operator.signing.keyless_bundle import OTHER_NAME_OID
from support.sigstore_offline import Offline, verify_offline
from support.sigstore_site import (
    ISSUER,
    LONG,
    SUBJECT,
    THEN,
    Authority,
    Change,
    Json,
    Log,
    Site,
    b64,
    entry_body,
    new_key,
    period,
)

STATEMENT = b'{"_type":"https://in-toto.io/Statement/v1"}'
OTHER_STATEMENT = b'{"_type":"https://in-toto.io/Statement/v0.1"}'
HOUR = timedelta(hours=1)

SITE = Site()
GOOD = SITE.bundle(STATEMENT)


def identity_of(site: Site, change: Change | None = None) -> KeylessIdentity:
    return load_identity(site.trusted_root(change), issuer=ISSUER, subject=SUBJECT)


@pytest.fixture(scope="module")
def identity() -> KeylessIdentity:
    return identity_of(SITE)


def refusal(identity: KeylessIdentity, document: Json) -> str:
    data = json.dumps(document).encode()
    said = identity.refusal(data)
    assert identity.verifies(data) is (said == "")
    return said


def changed(document: Json, change: Change) -> Json:
    made = copy.deepcopy(document)
    change(made)
    return made


def material(document: Json) -> Json:
    inner: Json = document["verificationMaterial"]
    return inner


def entry(document: Json) -> Json:
    first: Json = material(document)["tlogEntries"][0]
    return first


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


@dataclass(frozen=True)
class Impostor(Log):
    """A log that calls itself by another id."""

    named: bytes = b""

    def __init__(self, named: bytes, key: object = None) -> None:
        object.__setattr__(self, "key", key or new_key())
        object.__setattr__(self, "named", named)

    @property
    @override
    def id(self) -> bytes:
        return self.named


def recorded_in(log: Log, document: Json) -> Json:
    """Record in another log what a bundle's entry records."""
    body = base64.b64decode(entry(document)["canonicalizedBody"])
    made = SITE.entry(body, THEN + timedelta(seconds=1), by=log)
    return changed(document, lambda one: material(one).update(tlogEntries=[made]))


def test_case_15a_a_log_entry_about_another_payload_is_refused(identity: KeylessIdentity) -> None:
    other = material(SITE.bundle(OTHER_STATEMENT))["tlogEntries"]
    assert refusal(identity, changed(GOOD, lambda one: material(one).update(tlogEntries=other)))


def test_case_15b_a_log_entry_about_another_key_is_refused(identity: KeylessIdentity) -> None:
    # Same payload, same signature; but the log saw the certificate of somebody else with it.
    signature = base64.b64decode(GOOD["dsseEnvelope"]["signatures"][0]["sig"])
    body = entry_body(STATEMENT, signature, SITE.certificate(new_key()))
    made = SITE.entry(body, THEN + timedelta(seconds=1))
    said = refusal(identity, changed(GOOD, lambda one: material(one).update(tlogEntries=[made])))
    assert "log entry signatures do not match" in said


def test_case_15c_a_promise_by_another_key_is_refused(identity: KeylessIdentity) -> None:
    assert "invalid" in refusal(identity, recorded_in(Impostor(SITE.log.id), GOOD))


def test_case_15d_an_unknown_log_is_refused(identity: KeylessIdentity) -> None:
    assert "names no transparency log" in refusal(identity, recorded_in(Log(), GOOD))


def test_case_15d_a_known_key_under_an_unknown_log_id_is_refused(identity: KeylessIdentity) -> None:
    # The library takes the id for a hint, and would try every key it knows.
    renamed = recorded_in(Impostor(b"\1" * 32, SITE.log.key), GOOD)
    assert "names no transparency log" in refusal(identity, renamed)


@pytest.mark.parametrize("second", [GOOD, SITE.bundle(OTHER_STATEMENT)])
def test_case_15e_two_entries_of_one_log_are_no_two_proofs(identity: KeylessIdentity, second: Json) -> None:
    # Nothing is ever counted: one log entry, and one only, is what a bundle may have.
    doubled = changed(GOOD, lambda one: material(one)["tlogEntries"].append(entry(second)))
    assert "exactly one log entry" in refusal(identity, doubled)


def _set(*path: str, to: object) -> Change:
    def change(document: Json) -> None:
        for name in path[:-1]:
            document = document[int(name)] if isinstance(document, list) else document[name]
        document[path[-1]] = to

    return change


IN_ENTRY = ("verificationMaterial", "tlogEntries", "0")


@pytest.mark.parametrize(
    "change",
    [
        _set(*IN_ENTRY, "integratedTime", to=str(int(THEN.timestamp()) + 2)),
        _set(*IN_ENTRY, "logIndex", to="8"),
        _set(*IN_ENTRY, "inclusionPromise", "signedEntryTimestamp", to=b64(b"x")),
        _set(*IN_ENTRY, "inclusionProof", "rootHash", to=b64(b"x" * 32)),
        _set(*IN_ENTRY, "inclusionProof", "treeSize", to="2"),
        _set(*IN_ENTRY, "inclusionProof", "hashes", to=[b64(b"x" * 32)]),
        _set(*IN_ENTRY, "kindVersion", "kind", to="hashedrekord"),
        _set(*IN_ENTRY, "kindVersion", "version", to="0.0.2"),
    ],
)
def test_case_15f_a_changed_log_entry_is_refused(identity: KeylessIdentity, change: Change) -> None:
    assert refusal(identity, changed(GOOD, change))


def test_a_checkpoint_of_another_tree_is_refused(identity: KeylessIdentity) -> None:
    other = entry(SITE.bundle(OTHER_STATEMENT))["inclusionProof"]["checkpoint"]
    assert "root hash" in refusal(
        identity, changed(GOOD, _set(*IN_ENTRY, "inclusionProof", "checkpoint", to=other))
    )


def test_a_bundle_that_proves_no_time_is_refused(identity: KeylessIdentity) -> None:
    timeless = changed(GOOD, lambda one: entry(one).pop("inclusionPromise"))
    assert "neither a signed timestamp nor a log's promise" in refusal(identity, timeless)


def test_case_16a_an_intermediate_that_had_expired_is_refused() -> None:
    site = Site(authority=Authority(until=THEN - HOUR))
    assert "no certificate authority" in refusal(identity_of(site), site.bundle(STATEMENT))


def test_case_16a_an_intermediate_under_a_root_that_had_expired_is_refused() -> None:
    # The library would accept it: to it, an intermediate in the trusted root needs nobody above it.
    site = Site(authority=Authority(root_until=THEN - HOUR))
    assert "no certificate authority" in refusal(identity_of(site), site.bundle(STATEMENT))


def test_case_16a_an_intermediate_that_expired_since_still_counts() -> None:
    site = Site(authority=Authority(until=THEN + HOUR))
    assert refusal(identity_of(site), site.bundle(STATEMENT)) == ""


@pytest.mark.parametrize("late", [-HOUR, timedelta(minutes=11)])
def test_case_16b_a_time_outside_the_certificates_life_is_refused(
    identity: KeylessIdentity, late: timedelta
) -> None:
    assert refusal(identity, SITE.bundle(STATEMENT, recorded=THEN + late))


def _until(kind: str, end: datetime, start: datetime = THEN - LONG) -> Change:
    def change(root: Json) -> None:
        entry = root[kind][0]
        holder = entry if kind == "certificateAuthorities" else entry["publicKey"]
        holder["validFor"] = period(start, end)

    return change


ENTRIES = ("certificateAuthorities", "tlogs", "ctlogs")


@pytest.mark.parametrize("kind", ENTRIES)
def test_case_16c_entries_of_the_root_count_for_their_period_only(kind: str) -> None:
    over = identity_of(SITE, _until(kind, THEN - HOUR))
    not_yet = identity_of(SITE, _until(kind, THEN + LONG, start=THEN + HOUR))
    for identity in (over, not_yet):
        assert "counted at 2026-03-02 10:00" in refusal(identity, GOOD)


@pytest.mark.parametrize("kind", ENTRIES)
def test_case_16c_what_was_signed_within_the_period_stays_signed(kind: str) -> None:
    assert refusal(identity_of(SITE, _until(kind, THEN + HOUR)), GOOD) == ""


def test_a_root_with_an_old_and_a_new_authority_takes_the_one_of_that_time() -> None:
    newer = replace(SITE, authority=Authority())

    def rotate(root: Json) -> None:
        old = SITE.authority.instance(period(THEN - LONG, THEN))
        new = newer.authority.instance(period(THEN))
        root["certificateAuthorities"] = [old, new]

    identity = identity_of(SITE, rotate)
    assert refusal(identity, SITE.bundle(STATEMENT, THEN - HOUR)) == ""
    assert refusal(identity, newer.bundle(STATEMENT, THEN + HOUR)) == ""
    assert refusal(identity, SITE.bundle(STATEMENT, THEN + HOUR))
    assert refusal(identity, newer.bundle(STATEMENT, THEN - HOUR))


@pytest.mark.parametrize("years", [-60, -10, 0, 10])
def test_case_16d_the_machines_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch, years: int) -> None:
    # Periods are judged at the time of the signature, and that time is proved by the log or by a timestamp. A
    # device whose clock fell back to 1970 verifies what it verified before, and is not talked into more.
    asked = []

    class Off(datetime):
        @classmethod
        @override
        def now(cls, tz: tzinfo | None = None) -> Self:
            asked.append(tz)
            real = datetime.now(tz)
            return cls.fromtimestamp(real.timestamp() + years * 365.25 * 86400, tz)

    good, late = (
        identity_of(SITE, _until("tlogs", THEN + HOUR)),
        identity_of(SITE, _until("tlogs", THEN - HOUR)),
    )
    assert refusal(good, GOOD) == ""
    for name, module in list(sys.modules.items()):
        if name.startswith("sigstore") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Off)
    assert refusal(good, GOOD) == ""
    assert refusal(late, GOOD)
    assert asked, "the library asks the clock somewhere; else this test shows nothing"


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
    ("change", "said"),
    [
        (lambda root: root.pop("mediaType"), "at mediaType"),
        (lambda root: root.update(mediaType="application/json"), "at mediaType"),
        (lambda root: root.update(tlogs=[]), "no transparency log"),
        (lambda root: root.update(ctlogs=[]), "no certificate transparency log"),
        (lambda root: root.update(certificateAuthorities=[]), "no certificate authority"),
        (lambda root: root.update(more=1), "at more"),
        (lambda root: root["tlogs"][0]["publicKey"].update(rawBytes="eA=="), "cannot be read"),
        (lambda root: root["tlogs"][0]["publicKey"].pop("rawBytes"), "cannot be read"),
        (lambda root: root["tlogs"][0]["publicKey"].update(keyDetails="ROT13"), "keyDetails"),
        (
            lambda root: root["certificateAuthorities"][0]["certChain"].update(certificates=[]),
            "no certificate for one",
        ),
        (
            lambda root: root["certificateAuthorities"][0]["certChain"]["certificates"][0].update(
                rawBytes=""
            ),
            "cannot be read",
        ),
    ],
)
def test_a_trusted_root_that_cannot_be_used_is_refused_with_a_reason(change: Change, said: str) -> None:
    with pytest.raises(BadTrustedRoot, match=said):
        identity_of(SITE, change)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b"x" * (1024 * 1024 + 1), b"-----BEGIN CERTIFICATE-----"]
)
def test_what_is_no_trusted_root_is_refused(data: bytes) -> None:
    with pytest.raises(BadTrustedRoot):
        load_identity(data, issuer=ISSUER, subject=SUBJECT)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_changed_trusted_roots_load_or_are_refused(data: st.DataObject) -> None:
    raw = bytearray(SITE.trusted_root())
    where = data.draw(st.integers(0, len(raw) - 1))
    raw[where : where + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        identity = load_identity(bytes(raw), issuer=ISSUER, subject=SUBJECT)
    except SigningError:
        return
    identity.verifies(json.dumps(GOOD).encode())


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
