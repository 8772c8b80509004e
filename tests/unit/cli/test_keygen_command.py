"""`edgemodel keygen`: key pairs as Secrets and as files."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edgemodel_operator.cli.keygen_command import KINDS
from edgemodel_operator.cli.main import main
from edgemodel_operator.signing.keys import load_private_key, load_public_key, parse_signing_secret


def keygen(*arguments: str, password: str | None = None, typed: str = "") -> tuple[int, str]:
    env = {"COSIGN_PASSWORD": password}
    ran = CliRunner().invoke(main, ["keygen", *arguments], input=typed, env=env)
    return ran.exit_code, ran.output


def secrets_in(output: str) -> dict[str, dict[str, bytes]]:
    return {
        document["metadata"]["name"]: {
            field: base64.b64decode(value) for field, value in document["data"].items()
        }
        for document in yaml.safe_load_all(output)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_hold_a_pair_of_the_wanted_kind_and_its_public_half(kind: str) -> None:
    code, output = keygen("--kind", kind)
    assert code == 0
    found = secrets_in(output)
    key = parse_signing_secret(found["edgemodel-signing-key"])
    assert key.public_key.kind is KINDS[kind]
    assert found["edgemodel-signing-public"] == {"cosign.pub": key.public_key.pem}
    assert len(found["edgemodel-signing-key"]["cosign.password"]) >= 32


def test_the_password_in_the_environment_is_used_as_by_cosign() -> None:
    _, output = keygen(password="chosen")
    assert secrets_in(output)["edgemodel-signing-key"]["cosign.password"] == b"chosen"


def test_files_are_written_for_their_owner_alone(tmp_path: Path) -> None:
    code, output = keygen("--output-dir", str(tmp_path), "--kind", "ed25519", password="chosen")
    assert code == 0
    private, public = tmp_path / "cosign.key", tmp_path / "cosign.pub"
    assert output.split() == [str(private), str(public)]
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = load_private_key(private.read_bytes(), b"chosen")
    assert load_public_key(public.read_bytes()) == key.public_key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cosign.key", "cosign.pub"]


@pytest.mark.parametrize("there", ["cosign.key", "cosign.pub"])
def test_files_are_never_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    code, output = keygen("--output-dir", str(tmp_path), password="")
    assert code == 2
    assert "never replaced" in output
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {there: "mine"}


def test_a_dangling_link_counts_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "cosign.key").symlink_to(tmp_path / "elsewhere")
    code, _ = keygen("--output-dir", str(tmp_path), password="")
    assert code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_terminal_the_password_must_be_in_the_environment(tmp_path: Path) -> None:
    code, output = keygen("--output-dir", str(tmp_path), typed="typed\ntyped\n")
    assert code == 2
    assert "COSIGN_PASSWORD" in output
    assert not list(tmp_path.iterdir())
