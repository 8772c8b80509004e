"""What Buildah is asked, and what its pod may do."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from edgemodel_operator.build.dockerfile.buildah import buildah_command, prepare
from edgemodel_operator.build.dockerfile.buildah_pod import pod_rights

OPTIONS = argparse.Namespace(
    context=Path("/work/context"),
    dockerfile="docker/Dockerfile",
    base=Path("/work/base"),
    out=Path("/work/out"),
    state=Path("/work/state"),
    argument=["RUNTIME_IMAGE=mine", "A=b c"],
)


def test_the_runtime_image_comes_last_among_the_arguments() -> None:
    command = buildah_command(OPTIONS, one_user=False)
    given = [command[at + 1] for at, word in enumerate(command) if word == "--build-arg"]
    assert given == ["RUNTIME_IMAGE=mine", "A=b c", "RUNTIME_IMAGE=oci:/work/base:runtime"]
    assert command[-3:] == [
        "--file=/work/context/docker/Dockerfile",
        "--tag=oci:/work/out:result",
        "/work/context",
    ]


@pytest.mark.parametrize("one_user", [True, False])
def test_owners_are_let_go_only_where_there_is_one_user(one_user: bool) -> None:
    command = buildah_command(OPTIONS, one_user=one_user)
    assert ("--storage-opt=vfs.ignore_chown_errors=true" in command) is one_user


def test_nothing_of_the_environment_reaches_a_dockerfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    tmp_path.chmod(0o2777)
    environment = prepare(tmp_path / "state")
    assert set(environment) == {
        "PATH",
        "HOME",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "BUILDAH_ISOLATION",
        "_CONTAINERS_USERNS_CONFIGURED",
    }
    modes = {folder.name: folder.stat().st_mode & 0o7777 for folder in (tmp_path / "state").iterdir()}
    assert modes == dict.fromkeys(("storage", "run", "tmp", "home"), 0o700)


@pytest.mark.parametrize("user_namespaces", [True, False])
def test_no_pod_is_privileged_or_root_of_its_node(user_namespaces: bool) -> None:
    rights = pod_rights(user_namespaces=user_namespaces)
    security = rights.pod["securityContext"]
    assert security["runAsUser"] != 0 or rights.pod["hostUsers"] is False
    assert security["runAsNonRoot"] is (security["runAsUser"] != 0)
    assert rights.container["capabilities"]["drop"] == ["ALL"]
    assert set(rights.container["capabilities"].get("add", ())) <= {"SETUID", "SETGID", "SETFCAP"}
    assert rights.container["allowPrivilegeEscalation"] is False
    assert "privileged" not in rights.container
