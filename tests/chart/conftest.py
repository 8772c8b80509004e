"""The chart as helm renders it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.tools import tool
from support.chart import Objects, Render, render_chart


@pytest.fixture(scope="session")
def helm() -> Path:
    """Return the helm program of the test cluster."""
    return tool("helm")


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """Render the chart with values given as a mapping; raises HelmError."""

    def rendered(values: dict[str, Any] | None = None) -> Objects:
        return render_chart(helm, values or {})

    return rendered


@pytest.fixture(scope="session")
def objects(render: Render) -> Objects:
    """Render the chart with its defaults."""
    return render()
