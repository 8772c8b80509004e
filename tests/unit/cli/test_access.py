"""What a build is lent: Secrets and ConfigMaps in the files, and the user's own logins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.cli.access import read_access
from edgemodel_operator.cli.documents import Documents, InvalidDocuments
from edgemodel_operator.cli.plan import Wishes, plan_jobs
from edgemodel_operator.core.supply import BuildAccess
from edgemodel_operator.oci.auth import Credential, InvalidCredentials
from edgemodel_operator.settings import Settings
from support.command_line import model_document

HOST = "registry.plant-a.local"
DOCKER = json.dumps({"auths": {HOST: {"username": "plant", "password": "of the Secret"}}}).encode()
URL = "https://models.plant-a.local/line.onnx"


def access(tmp_path: Path, source: dict[str, Any], secrets: dict[str, Any], **changes: Any) -> BuildAccess:
    raw = model_document(source, f"{HOST}/models/line", **changes)
    documents = Documents(
        {"line": EdgeModelSpec.model_validate(raw["spec"])}, {}, secrets, {"tiny": {"m.onnx": b"model"}}
    )
    (job,) = plan_jobs(documents, Settings(), Wishes({"onnxruntime-cpu": f"{HOST}/runtime:1"}))
    return read_access(documents, job, tmp_path / "config.json", [HOST])


def test_a_secret_of_a_web_server_gives_its_fields(tmp_path: Path) -> None:
    given = access(
        tmp_path,
        {"http": {"url": URL, "credentialsSecret": {"name": "login"}}},
        {"login": {"token": b"secret"}, "other": {"token": b"not asked for"}},
    )
    assert given.source_secret == {"token": b"secret"}
    assert given.registries == {}
    assert "secret" not in repr(given)


def test_a_secret_of_a_registry_gives_logins_before_the_user_s_own(tmp_path: Path) -> None:
    own = {
        "auths": {HOST: {"username": "me", "password": "mine"}, "b.local": {"username": "b", "password": "b"}}
    }
    (tmp_path / "config.json").write_text(json.dumps(own))
    source = {"oci": {"reference": f"{HOST}/artifacts/line:1", "credentialsSecret": {"name": "login"}}}
    given = access(tmp_path, source, {"login": {".dockerconfigjson": DOCKER}})
    assert given.registries[HOST] == Credential("plant", "of the Secret")
    assert given.registries["b.local"] == Credential("b", "b")
    assert given.source_secret == {}


def test_the_context_of_a_dockerfile_has_a_secret_of_its_own(tmp_path: Path) -> None:
    context = {
        "http": {"url": URL, "sha256": "a" * 64, "credentialsSecret": {"name": "context"}},
        "archive": {},
    }
    image = {"repository": f"{HOST}/models/line", "builder": "Docker", "dockerfile": {"context": context}}
    given = access(tmp_path, {"http": {"url": URL}}, {"context": {"token": b"of the context"}}, image=image)
    assert (given.source_secret, given.context_secret) == ({}, {"token": b"of the context"})


def test_entries_come_from_the_config_map_in_the_files(tmp_path: Path) -> None:
    given = access(tmp_path, {"configMap": {"name": "tiny", "key": "m.onnx"}}, {})
    assert given.config_map == {"m.onnx": b"model"}


@pytest.mark.parametrize(
    ("source", "secrets", "sentence"),
    [
        ({"configMap": {"name": "missing", "key": "m.onnx"}}, {}, "ConfigMap missing: add its document"),
        (
            {"http": {"url": URL, "credentialsSecret": {"name": "login"}}},
            {},
            "Secret login: add its document",
        ),
        (
            {"oci": {"reference": f"{HOST}/a/b:1", "credentialsSecret": {"name": "login"}}},
            {"login": {"token": b"x"}},
            "no field .dockerconfigjson",
        ),
        (
            {"oci": {"reference": f"{HOST}/a/b:1", "credentialsSecret": {"name": "login"}}},
            {"login": {".dockerconfigjson": b"{"}},
            "Secret login: The registry credentials are not",
        ),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, source: dict[str, Any], secrets: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((InvalidDocuments, InvalidCredentials)) as caught:
        access(tmp_path, source, secrets)
    assert sentence in str(caught.value)
