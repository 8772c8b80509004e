"""`edgemodel sign`: what a wrong command line is told, before any registry is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgemodel_operator.cli.main import main
from edgemodel_operator.cli.sign_command import PREDICATE_TYPES
from edgemodel_operator.signing.keys import KeyPair, generate_key_pair

IMAGE = "registry.plant-a.local:5000/models/nsfw:1"


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return generate_key_pair(b"from a test")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say who signs"),
        (["--signer-command", "true"], "belong together"),
        (["--key", "KEY", "--attestation", "spdxjson"], "TYPE=FILE"),
        (["--key", "KEY", "--fulcio-url", "https://ca.plant-a.local"], "go with --identity-token"),
        (["--identity-token", "KEY"], "nothing is contacted by default"),
        (["--identity-token", "KEY", "--key", "KEY"], "either with keys"),
        (["--identity-token", "KEY", "--format", "Legacy"], "bundles"),
        (["--signer-command", "sign '", "--public-key", "PUBLIC"], "--signer-command"),
        (["--key", "PUBLIC"], "not one of cosign's encrypted keys"),
    ],
)
def test_a_wrong_command_line_is_explained(
    pair: KeyPair, tmp_path: Path, arguments: list[str], said: str
) -> None:
    files = {"KEY": tmp_path / "cosign.key", "PUBLIC": tmp_path / "cosign.pub"}
    files["KEY"].write_bytes(pair.private_pem)
    files["PUBLIC"].write_bytes(pair.public_pem)
    words = [str(files.get(word, word)) for word in arguments]
    ran = CliRunner().invoke(main, ["sign", *words, IMAGE], env={"COSIGN_PASSWORD": "from a test"})
    assert ran.exit_code == 2, ran.output
    assert said in " ".join(ran.output.split())


def test_the_password_is_asked_for_on_a_terminal_alone(pair: KeyPair, tmp_path: Path) -> None:
    (tmp_path / "cosign.key").write_bytes(pair.private_pem)
    ran = CliRunner().invoke(
        main, ["sign", "--key", str(tmp_path / "cosign.key"), IMAGE], env={"COSIGN_PASSWORD": None}
    )
    assert ran.exit_code == 2
    assert "set COSIGN_PASSWORD" in ran.output


def test_the_short_names_stand_for_uris() -> None:
    assert all(uri.startswith("https://") for uri in PREDICATE_TYPES.values())
