"""The disk of the operator's pod, and what the operator knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemodel_operator.settings import load_settings
from support.chart import Render


@pytest.mark.parametrize(("limit", "builds"), [(None, 2), ("32Gi", 4)])
def test_builds_share_the_room_that_the_pod_has(
    render: Render, tmp_path: Path, limit: str | None, builds: int
) -> None:
    """With what the chart comes with, each has room for the largest model and its layers."""
    objects = render({"operator": {"tmpSizeLimit": limit, "maxConcurrentBuilds": builds}})
    pod = objects["Deployment", "edgemodel-operator"]["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tmp"]
    (tmp_path / "config.yaml").write_text(objects["ConfigMap", "edgemodel-config"]["data"]["config.yaml"])
    settings = load_settings({"EDGEMODEL_CONFIG": str(tmp_path / "config.yaml")})
    assert volume["emptyDir"]["sizeLimit"] == settings.tmp_size_limit
    share = settings.build_disk_bytes
    assert share is not None
    assert share > 2 * settings.sources.max_bytes
