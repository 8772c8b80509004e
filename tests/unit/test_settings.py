"""What the configuration file may say, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgemodel_operator.settings import InvalidSettings, Settings, load_settings
from support.certificate import write_certificate


def load(folder: Path, **values: object) -> Settings:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    return load_settings({"EDGEMODEL_CONFIG": str(file)})


def test_authorities_are_certificates(tmp_path: Path) -> None:
    text = write_certificate(tmp_path)[0].read_text()
    settings = load(tmp_path, registries={"certificateAuthorities": text})
    assert settings.registries.certificate_authorities == text


@pytest.mark.parametrize("text", ["registry.plant-a.local", "-----BEGIN CERTIFICATE-----\nAAAA\n", "\u00e9"])
def test_what_is_no_certificate_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSettings, match=r"certificateAuthorities|certificate_authorities"):
        load(tmp_path, registries={"certificateAuthorities": text})


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="plainHtpp"):
        load(tmp_path, registries={"plainHtpp": []})


def test_upload_hosts_are_read(tmp_path: Path) -> None:
    settings = load(tmp_path, registries={"allowedUploadHosts": ["uploads.plant-a.local"]})
    assert settings.registries.allowed_upload_hosts == ("uploads.plant-a.local",)


@pytest.mark.parametrize("name", ["deniedNetworks", "allowedNetworks"])
@pytest.mark.parametrize("network", ["10.43.7.9/16", "fd00::1/8", "10.43.0.0/33", "plant-a.local"])
def test_what_is_no_network_is_refused_at_the_start(tmp_path: Path, name: str, network: str) -> None:
    with pytest.raises(InvalidSettings, match="write networks as"):
        load(tmp_path, sources={name: [network]})


@pytest.mark.parametrize(
    ("limit", "builds", "share"),
    [
        ("16Gi", 2, 15 * 2**29),
        ("1.5Ki", 1, 1440),
        ("32k", 3, 10_000),
        ("3200", 1, 3000),
        ("", 2, None),
    ],
)
def test_the_room_for_temporary_files_is_shared(
    tmp_path: Path, limit: str, builds: int, share: int | None
) -> None:
    settings = load(tmp_path, tmpSizeLimit=limit, maxConcurrentBuilds=builds)
    assert settings.build_disk_bytes == share


def test_a_room_that_is_no_quantity_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="tmpSizeLimit"):
        load(tmp_path, tmpSizeLimit="8 GB")
