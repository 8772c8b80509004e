"""Which services keyless signing uses: those that were named, and named in full."""

from __future__ import annotations

import json

import pytest

from edgemodel_operator.signing.errors import BadServices, BadTrustedRoot
from edgemodel_operator.signing.keyless_services import Services, describe_services, load_services
from support.sigstore_site import Change, Json, Site

ROOT = Site().trusted_root()
FULCIO, REKOR, TSA = ("https://ca.plant-a.local", "https://log.plant-a.local", "https://tsa.plant-a.local")


def named(change: Change | None = None, *, fulcio: str = FULCIO) -> Services:
    document: Json = json.loads(describe_services(ROOT, fulcio=fulcio, rekor=REKOR, timestamps=TSA))
    if change:
        change(document)
    return load_services(json.dumps(document).encode())


@pytest.mark.parametrize("nothing", [None, b""])
def test_no_service_is_used_that_was_not_named(nothing: bytes | None) -> None:
    with pytest.raises(BadServices, match="nothing is contacted by default"):
        load_services(nothing)


def test_services_are_those_that_were_named() -> None:
    services = named()
    assert services.authority == FULCIO
    assert services.root.fingerprint.startswith("sha256:")


@pytest.mark.parametrize("url", ["http://127.0.0.1:5555", "http://[::1]:5555", "http://localhost:5555"])
def test_an_authority_on_this_machine_needs_no_tls(url: str) -> None:
    assert named(fulcio=url).authority == url


@pytest.mark.parametrize(
    "url",
    ["http://ca.plant-a.local", "http://10.1.2.3:5555", "http://127.0.0.1.plant-a.local", "ftp://x", "ca"],
)
def test_the_token_is_not_sent_where_others_can_read_it(url: str) -> None:
    with pytest.raises(BadServices, match="its address must be https"):
        named(fulcio=url)


def _services(document: Json) -> Json:
    config: Json = document["signingConfig"]
    return config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: _services(one).update(tsaUrls=[]), "name a timestamp authority"),
        (lambda one: _services(one).update(caUrls=[]), "No valid Fulcio CA"),
        (lambda one: _services(one).update(rekorTlogUrls=[]), "No valid Rekor"),
        (lambda one: _services(one).update(caUrls=[{"url": 1}]), "at signingConfig.caUrls"),
        (lambda one: _services(one).update(mediaType="x"), "at signingConfig.mediaType"),
        (lambda one: one.update(mediaType="x"), "at mediaType"),
        (lambda one: one.pop("signingConfig"), "at signingConfig"),
        (lambda one: one.pop("trustedRoot"), "trustedRoot"),
        (lambda one: one.update(trustedRoot=[]), "trusted root"),
    ],
)
def test_services_that_cannot_be_used_are_refused_with_a_reason(change: Change, said: str) -> None:
    with pytest.raises((BadServices, BadTrustedRoot), match=said):
        named(change)


@pytest.mark.parametrize("data", [b"{", b"[]", b"1", b"\xff", b"{}", b"x" * (2 * 1024 * 1024 + 1)])
def test_what_is_no_trust_config_is_refused(data: bytes) -> None:
    with pytest.raises(BadServices):
        load_services(data)


def test_a_log_of_version_1_needs_no_timestamp_authority() -> None:
    config = describe_services(ROOT, fulcio=FULCIO, rekor=REKOR, rekor_version=1)
    assert load_services(config).authority == FULCIO


def test_a_bad_trusted_root_is_found_before_anything_is_contacted() -> None:
    with pytest.raises(BadTrustedRoot):
        describe_services(b"{}", fulcio=FULCIO, rekor=REKOR)
