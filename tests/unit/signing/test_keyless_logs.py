"""When and where a keyless bundle was recorded, and by which trusted root that counts."""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from edgemodel_operator.signing.errors import BadTrustedRoot, SigningError
from edgemodel_operator.signing.keyless import KeylessIdentity, load_identity
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
    recorded_in,
    refusal,
)
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

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def identity() -> KeylessIdentity:
    return identity_of(SITE)


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
