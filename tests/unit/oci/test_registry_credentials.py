"""Docker config documents, the choice of a credential, and challenges."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.oci.auth import (
    Challenge,
    Credential,
    InvalidCredentials,
    find_credential,
    may_see,
    parse_challenges,
    parse_docker_config,
)


def _config(auths: Any) -> bytes:
    return json.dumps({"auths": auths}).encode()


def _auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_both_forms_of_an_entry_are_read() -> None:
    config = _config(
        {
            "https://registry.example.com/v1/": {"username": "a", "password": "b"},
            "registry.plant-a.local:5000": _auth("robot$x:p:w"),
            "http://Other.example.com/v2/": _auth("c:d"),
            "helper.example.com": {},
            "token.example.com": {"identitytoken": "x"},
        }
    )
    assert parse_docker_config(config) == {
        "registry.example.com": Credential("a", "b"),
        "registry.plant-a.local:5000": Credential("robot$x", "p:w"),
        "other.example.com": Credential("c", "d"),
    }


@pytest.mark.parametrize(
    "data",
    [b"", b"hunter2", b"[]", b"{}", b'{"auths":[]}', b"\xff", _config({"a.example.com": {"auth": "%%%"}})],
)
def test_broken_documents_are_refused_without_quoting_them(data: bytes) -> None:
    with pytest.raises(InvalidCredentials) as raised:
        parse_docker_config(data)
    assert "hunter2" not in str(raised.value)
    assert "%%%" not in str(raised.value)


@given(st.text(min_size=8), st.text(min_size=1))
def test_a_password_is_never_shown(password: str, username: str) -> None:
    shown = repr(Credential(username, f"<{password}>"))
    assert f"<{password}>" not in shown.replace(repr(username), "")


@pytest.mark.parametrize(
    ("registry", "repository", "username"),
    [
        ("registry.example.com", "any/thing", "host"),
        ("registry.example.com", "team/model", "team"),
        ("registry.example.com", "team", "team"),
        ("registry.example.com", "teamwork/model", "host"),
        ("registry.example.com:5000", "x", None),
        ("a.plant.example.com", "x", "plants"),
        ("plant.example.com", "x", None),
        ("a.b.plant.example.com", "x", None),
    ],
)
def test_the_most_specific_credential_is_chosen(registry: str, repository: str, username: str | None) -> None:
    credentials = {
        "registry.example.com": Credential("host", "1"),
        "registry.example.com/team": Credential("team", "2"),
        "*.plant.example.com": Credential("plants", "3"),
    }
    found = find_credential(credentials, registry, repository)
    assert (found.username if found else None) == username


@pytest.mark.parametrize(
    ("registry", "realm", "seen"),
    [
        ("site.example", "site.example", True),
        ("registry-1.site.example", "auth.site.example", True),
        ("registry.site.example", "site.example", True),
        ("registry.cn-x.cloud.example", "auth.cn-x.cloud.example", True),
        ("Registry.Plant-A.local", "auth.plant-a.local.", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("registry.plant-a.local", "login.named.example", True),
        ("registry.plant-a.local", "attacker.example", False),
        ("registry.plant-a.local", "evilplant-a.local", False),
        ("registry.plant-a.local", "plant-a.local.attacker.example", False),
        ("registry.local", "attacker.local", False),
        ("shop.co.uk", "attacker.co.uk", False),
        ("registry", "attacker", False),
        ("10.0.0.5", "9.0.0.5", False),
        ("::1", "::2", False),
    ],
)
def test_case_22_only_the_registry_its_neighbours_and_named_hosts_are_shown_a_credential(
    registry: str, realm: str, seen: bool
) -> None:
    assert may_see(Credential("robot", "s3cret", ("login.named.example",)), registry, realm) is seen


def test_an_entry_may_name_further_hosts_for_its_tokens() -> None:
    pair = base64.b64encode(b"robot:s3cret").decode()
    entries = {
        "a.example": {"auth": pair, "tokenHosts": ["login.example", 7]},
        "b.example": {"username": "robot", "password": "s3cret", "tokenHosts": ["login.example"]},
        "c.example": {"auth": pair, "tokenHosts": "login.example"},
    }
    found = parse_docker_config(json.dumps({"auths": entries}).encode())
    assert [found[name].token_hosts for name in entries] == [("login.example",), ("login.example",), ()]


def test_challenges_are_read_from_one_or_many_headers() -> None:
    bearer = 'Bearer realm="https://auth.example.com/token",service="r, x",scope="repository:a:pull,push"'
    parameters = {
        "realm": "https://auth.example.com/token",
        "service": "r, x",
        "scope": "repository:a:pull,push",
    }
    assert parse_challenges([bearer]) == (Challenge("bearer", parameters),)
    two = (Challenge("basic", {"realm": "x"}), Challenge("bearer", parameters))
    assert parse_challenges([f'Basic realm="x", {bearer}']) == two
    assert parse_challenges(['BASIC realm="x"', bearer]) == two
    assert parse_challenges(["Basic"]) == (Challenge("basic", {}),)


@given(st.lists(st.text(max_size=40), max_size=3))
def test_no_challenge_breaks_the_parser(headers: list[str]) -> None:
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in parse_challenges(headers))
