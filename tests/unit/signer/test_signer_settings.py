"""Who signs has to be said, and a command needs the other half of its key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgemodel_operator.settings import InvalidSettings, load_settings


def load(folder: Path, **signing: object) -> object:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"signing": signing}))
    return load_settings({"EDGEMODEL_CONFIG": str(path)}).signing


@pytest.mark.parametrize(
    ("signing", "sentence"),
    [
        ({"secretNames": []}, "name a Secret in signing.secretNames, or give signing.command"),
        ({"command": {"argv": ["sign"]}}, "signing.command.publicKey"),
        ({"command": {"publicKey": "…"}}, "signing.command.argv"),
        ({"secretName": "line-key"}, "secretName"),
    ],
)
def test_what_would_sign_nothing_is_refused_at_start(
    tmp_path: Path, signing: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidSettings, match=sentence):
        load(tmp_path, **signing)


def test_a_command_may_stand_alone(tmp_path: Path) -> None:
    assert load(tmp_path, secretNames=[], command={"argv": ["sign"], "publicKey": "…"})
