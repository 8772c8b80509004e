"""Where files come from, as URIs without secrets."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.api.source import Source
from edgemodel_operator.build.origin.contents import Material, materials_of

FILES = (
    ModelFile(name="model.xml", sha256="a" * 64, size=1),
    ModelFile(name="model.bin", sha256="b" * 64, size=2),
)


@pytest.mark.parametrize(
    ("source", "uris"),
    [
        (
            {"http": {"url": "https://h.local/m.xml?sig=1", "weights": {"url": "https://h.local/m.bin#x"}}},
            ["https://h.local/m.xml", "https://h.local/m.bin"],
        ),
        (
            {
                "s3": {
                    "endpoint": "https://s3.plant-a.local/",
                    "bucket": "line",
                    "key": "a b",
                    "weights": {"key": "c"},
                }
            },
            ["https://s3.plant-a.local/line/a%20b", "https://s3.plant-a.local/line/c"],
        ),
        (
            {
                "oci": {
                    "reference": "registry.plant-a.local/m:1",
                    "path": "m.xml",
                    "weights": {"path": "m.bin"},
                }
            },
            ["oci://registry.plant-a.local/m:1#m.xml", "oci://registry.plant-a.local/m:1#m.bin"],
        ),
        (
            {"pvc": {"claimName": "models", "path": "a/m.xml", "weights": {"path": "a/m.bin"}}},
            ["pvc://models/a/m.xml", "pvc://models/a/m.bin"],
        ),
        (
            {"configMap": {"name": "tiny", "key": "m.xml", "weights": {"key": "m.bin"}}},
            ["configmap://tiny/m.xml", "configmap://tiny/m.bin"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_kind_of_source_has_uris(source: dict[str, Any], uris: list[str]) -> None:
    made = materials_of(Source.model_validate(source), FILES)
    assert made == (
        Material(uris[0], "a" * 64, "model.xml"),
        Material(uris[1], "b" * 64, "model.bin"),
    )


def test_a_source_of_one_file_has_one() -> None:
    source = Source.model_validate({"oci": {"reference": "registry.plant-a.local/m:1"}})
    assert [one.uri for one in materials_of(source, FILES[:1])] == ["oci://registry.plant-a.local/m:1"]
