"""The webhook's certificates through their whole life, on a clock that the tests turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel_operator.web.certificates import (
    BACKDATED,
    CA_LIFE,
    FIELD_CA_KEY,
    FIELD_LEAF_KEY,
    LEAF_LIFE,
    OVERLAP,
    InvalidMaterial,
    Material,
    dump_material,
    next_material,
    parse_material,
)

HOST = "edgemodel-admission.edgemodel-system.svc"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def accepted(bundle: bytes, leaf: x509.Certificate, at: datetime, host: str = HOST) -> bool:
    """Whether a client that trusts the bundle accepts the leaf for the host at a time."""
    store = Store(x509.load_pem_x509_certificates(bundle))
    verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(host))
    try:
        verifier.verify(leaf, [])
    except VerificationError:
        return False
    return True


def test_the_first_material_is_accepted_for_the_service_and_nothing_else() -> None:
    material = next_material(None, HOST, START)
    assert accepted(material.ca_bundle, material.leaf, START)
    assert not accepted(material.ca_bundle, material.leaf, START, "other.edgemodel-system.svc")
    assert material.expires == START + LEAF_LIFE


def test_a_clock_that_is_behind_accepts_the_certificate() -> None:
    material = next_material(None, HOST, START)
    assert accepted(material.ca_bundle, material.leaf, START - BACKDATED + timedelta(minutes=1))


def test_nothing_changes_before_two_thirds_of_the_leafs_life() -> None:
    material = next_material(None, HOST, START)
    for share in (0.0, 0.3, 0.66):
        assert next_material(material, HOST, START + share * LEAF_LIFE) is material


def test_the_leaf_is_replaced_at_two_thirds_of_its_life_under_the_same_ca() -> None:
    material = next_material(None, HOST, START)
    now = START + LEAF_LIFE * 2 / 3
    renewed = next_material(material, HOST, now)
    assert renewed.bundle == material.bundle
    assert renewed.leaf != material.leaf
    assert renewed.expires == now + LEAF_LIFE
    assert accepted(material.ca_bundle, renewed.leaf, now)


def test_a_new_ca_is_announced_before_a_leaf_uses_it() -> None:
    now = START
    material = next_material(None, HOST, now)
    while now < START + CA_LIFE * 2 / 3 - timedelta(days=1):
        now += timedelta(days=1)
        material = next_material(material, HOST, now)
    old_bundle, old_leaf = material.ca_bundle, material.leaf
    now = START + CA_LIFE * 2 / 3
    announced = next_material(material, HOST, now)
    assert len(announced.bundle) == 2
    assert announced.leaf == old_leaf
    assert next_material(announced, HOST, now + OVERLAP / 2) is announced
    switched = next_material(announced, HOST, now + OVERLAP)
    assert switched.leaf != old_leaf
    for leaf in (old_leaf, switched.leaf):
        assert accepted(switched.ca_bundle, leaf, now + OVERLAP)
    assert not accepted(old_bundle, switched.leaf, now + OVERLAP)


@pytest.mark.parametrize("away", [LEAF_LIFE, LEAF_LIFE * 3, CA_LIFE, CA_LIFE * 5])
def test_a_site_that_was_off_for_long_gets_a_usable_certificate_at_once(away: timedelta) -> None:
    material = next_material(None, HOST, START)
    now = START + away + timedelta(seconds=1)
    renewed = next_material(material, HOST, now)
    assert accepted(renewed.ca_bundle, renewed.leaf, now)


def test_certificates_made_under_a_clock_years_ahead_are_replaced() -> None:
    material = next_material(None, HOST, START + timedelta(days=3650))
    now = START
    renewed = next_material(material, HOST, now)
    assert accepted(renewed.ca_bundle, renewed.leaf, now)
    assert next_material(renewed, HOST, now + timedelta(minutes=1)) is renewed


def test_another_service_name_gets_another_leaf() -> None:
    material = next_material(None, HOST, START)
    renewed = next_material(material, "renamed.edgemodel-system.svc", START + OVERLAP)
    assert accepted(renewed.ca_bundle, renewed.leaf, START + OVERLAP, "renamed.edgemodel-system.svc")


def test_a_long_service_name_is_no_obstacle() -> None:
    host = f"{'a' * 63}.{'b' * 63}.svc"
    material = next_material(None, host, START)
    assert accepted(material.ca_bundle, material.leaf, START, host)


def test_the_secret_round_trips() -> None:
    material = next_material(None, HOST, START)
    assert parse_material(dump_material(material)) == material
    assert parse_material({}) is None


def test_neither_representation_shows_a_key() -> None:
    material = next_material(None, HOST, START)
    assert "PRIVATE" not in repr(material)
    assert "key" not in repr(material)


@pytest.mark.parametrize("field", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
@pytest.mark.parametrize("damage", [None, b"", b"no PEM", b"\xff\x00"])
def test_damaged_secrets_are_recognized(field: str, damage: bytes | None) -> None:
    fields = dump_material(next_material(None, HOST, START))
    if damage is None:
        del fields[field]
    else:
        fields[field] = damage
    with pytest.raises(InvalidMaterial):
        parse_material(fields)


@pytest.mark.parametrize("field", [FIELD_CA_KEY, FIELD_LEAF_KEY])
def test_keys_of_other_certificates_are_recognized(field: str) -> None:
    fields = dump_material(next_material(None, HOST, START))
    fields[field] = dump_material(next_material(None, HOST, START))[field]
    with pytest.raises(InvalidMaterial):
        parse_material(fields)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=60 * 24 * 120), min_size=1, max_size=12))
def test_whatever_the_pauses_between_looks_the_leaf_in_use_is_accepted_by_old_and_new_bundle(
    minutes: list[int],
) -> None:
    now = START
    material: Material = next_material(None, HOST, now)
    for pause in minutes:
        now += timedelta(minutes=pause)
        before, still_valid = material, material.expires > now
        material = next_material(material, HOST, now)
        assert accepted(material.ca_bundle, material.leaf, now)
        if still_valid:
            # An API server that has not yet heard of the new bundle must not be cut off by a new leaf.
            assert accepted(before.ca_bundle, material.leaf, now)
            assert accepted(material.ca_bundle, before.leaf, now)
