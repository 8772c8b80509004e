"""What the page on origin says is what the code does."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from edgemodel_operator.build.origin.attach import make_documents
from edgemodel_operator.build.origin.provenance import RECORDED_OF_IMAGE
from support.origin import INDEX, children_of, make_origin

PAGE = (Path(__file__).parents[3] / "docs/origin.md").read_text(encoding="utf-8")
DOCUMENTS = make_documents(make_origin(), INDEX, children_of())


def test_every_document_is_named_with_its_type_and_file() -> None:
    for document in DOCUMENTS:
        assert f"`{document.media_type}`" in PAGE
        assert f"`{document.layer.annotations['org.opencontainers.image.title']}`" in PAGE


def test_every_field_of_the_provenance_is_explained() -> None:
    definition = json.loads(DOCUMENTS[-1].content)["predicate"]["buildDefinition"]
    assert definition["buildType"] in PAGE
    explained = set(re.findall(r"\.([a-zA-Z]+)`|`([a-zA-Z]+)`", PAGE))
    names = {name for pair in explained for name in pair if name}
    given = {*definition["externalParameters"], *definition["internalParameters"], *RECORDED_OF_IMAGE}
    assert given - names == set()


def test_the_way_back_that_is_shown_can_be_imported() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    tree = compile(shown, "origin.md", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    imports = [one for one in tree.body if isinstance(one, ast.ImportFrom)]
    assert imports
    exec(compile(ast.Module(imports, []), "origin.md", "exec"), {})  # noqa: S102 - our own page


@pytest.mark.parametrize("link", re.findall(r"\]\(([a-z-]+\.md)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (Path(__file__).parents[3] / "docs" / link).exists()
