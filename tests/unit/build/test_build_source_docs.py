"""What the page about sources shows is what the types take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from edgemodel_operator.api.source import KINDS, Source

PAGE = (Path(__file__).parents[3] / "docs/sources.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_of_the_page_is_a_source(block: str) -> None:
    Source.model_validate(yaml.safe_load(block)["source"])


def test_every_kind_has_an_example() -> None:
    shown = {kind for block in BLOCKS for kind in yaml.safe_load(block)["source"]}
    assert {*KINDS, "archive"} <= shown
