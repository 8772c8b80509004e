"""The user's own logins: written in the file, or asked of a helper program."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.cli.docker_config import docker_config_path, read_logins
from edgemodel_operator.oci.auth import Credential, InvalidCredentials

HOST = "registry.plant-a.local:5000"
HELPER = """#!/bin/sh
read host
[ "$1" = get ] || exit 2
[ "$host" = "registry.plant-a.local:5000" ] || { echo "credentials not found in native keychain"; exit 1; }
printf '{"ServerURL": "%s", "Username": "plant", "Secret": "from the keychain"}' "$host"
"""


def write(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A helper program on PATH that knows one registry."""
    program = tmp_path / "docker-credential-plant"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program


def test_the_file_is_where_docker_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert docker_config_path({"DOCKER_CONFIG": "/srv/docker"}) == Path("/srv/docker/config.json")
    monkeypatch.setenv("HOME", "/home/plant")
    assert docker_config_path({}) == Path("/home/plant/.docker/config.json")


def test_no_file_means_no_logins(tmp_path: Path) -> None:
    assert read_logins(tmp_path / "config.json", [HOST]) == {}


def test_written_logins_are_read(tmp_path: Path) -> None:
    auth = base64.b64encode(b"plant:secret").decode()
    path = write(tmp_path, {"auths": {HOST: {"auth": auth}, "other.plant-a.local": {}}})
    assert read_logins(path, [HOST]) == {HOST: Credential("plant", "secret")}


@pytest.mark.parametrize(
    "document",
    [
        {"credHelpers": {HOST: "plant"}},
        {"credsStore": "plant"},
        {"auths": {HOST: {}}, "credsStore": "plant"},
        {"auths": {}, "credsStore": "missing", "credHelpers": {HOST: "plant"}},
    ],
)
def test_a_helper_is_asked_for_what_is_not_written(tmp_path: Path, helper: Path, document: Any) -> None:
    assert read_logins(write(tmp_path, document), [HOST]) == {HOST: Credential("plant", "from the keychain")}


def test_a_helper_that_knows_nothing_gives_nothing(tmp_path: Path, helper: Path) -> None:
    assert read_logins(write(tmp_path, {"credsStore": "plant"}), ["other.plant-a.local"]) == {}


@pytest.mark.parametrize("answer", ["no JSON", "[]", '{"Username": "<token>", "Secret": "x"}', "{}"])
def test_a_helper_that_talks_nonsense_gives_nothing(tmp_path: Path, helper: Path, answer: str) -> None:
    helper.write_text(f"#!/bin/sh\necho '{answer}'\n")
    assert read_logins(write(tmp_path, {"credsStore": "plant"}), [HOST]) == {}


@pytest.mark.parametrize("name", ["missing", "../../bin/sh", ""])
def test_a_helper_that_is_no_program_is_not_fatal(tmp_path: Path, name: str) -> None:
    assert read_logins(write(tmp_path, {"credsStore": name}), [HOST]) == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}'])
def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidCredentials):
        read_logins(tmp_path / "config.json", [HOST])
