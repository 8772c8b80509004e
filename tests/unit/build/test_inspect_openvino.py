"""Reading OpenVINO IR that nobody vouches for: described, or refused in a sentence, whatever the bytes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.openvino import inspect_openvino
from support.formats import make_openvino

GRAPH, WEIGHTS = make_openvino(4)
BODY = b'<layers><layer id="0" name="%s" type="%s" version="opset1"><data %s/></layer></layers>'
LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<net version="11">&c;</net>"""
EXTERNAL = b"""<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]><net version="11">&a;</net>"""


def inspect(folder: Path, graph: bytes, weights: bytes = WEIGHTS) -> dict[str, Any]:
    (folder / "model").write_bytes(graph)
    (folder / "weights").write_bytes(weights)
    return inspect_openvino(folder / "model", folder / "weights")


def with_loop(body: bytes) -> bytes:
    """Put a loop with a body of its own into the graph."""
    loop = b'<layer id="9" name="loop" type="Loop" version="opset5"><body>' + body + b"</body></layer>"
    return GRAPH.replace(b"</layers>", loop + b"</layers>")


def test_a_model_is_described(tmp_path: Path) -> None:
    assert inspect(tmp_path, GRAPH) == {
        "irVersion": 11,
        "layers": 4,
        "inputs": [{"name": "x", "type": "f32", "shape": [None, 4]}],
        "outputs": [{"name": "y"}],
    }


def test_the_inputs_of_a_loop_are_not_those_of_the_model(tmp_path: Path) -> None:
    found = inspect(tmp_path, with_loop(BODY % (b"i", b"Parameter", b'shape="7" element_type="i64"')))
    assert [tensor["name"] for tensor in found["inputs"]] == ["x"]
    assert found["inputs"][0]["shape"] == [None, 4]
    assert found["layers"] == 6


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (b"", "not XML"),
        (b"<html><body>Please log in</html>", "not XML"),
        (b"<html><body>Please log in</body></html>", "does not begin with <net>"),
        (WEIGHTS, "not XML"),
        (GRAPH[:-20], "not XML"),
        (LAUGHS, "document type declaration"),
        (EXTERNAL, "document type declaration"),
        (GRAPH.replace(b'version="11"', b'version="7"'), "IR version is 7; 10 and 11 are known"),
        (GRAPH.replace(b'"Result"', b'"Relu"'), "no inputs or no outputs"),
        (GRAPH.replace(b'size="64"', b'size="65"'), "refers to byte 65 of the .bin file, which has 64"),
        (GRAPH.replace(b'offset="0"', b'offset="-9"'), "where a number of bytes belongs"),
        (GRAPH.replace(b'size="64"', b'size="%s"' % (b"9" * 5000)), "where a number of bytes belongs"),
        (with_loop(BODY % (b"w", b"Const", b'offset="64" size="1"')), "refers to byte 65"),
        (b"<net version='11'>" + b"<a>" * 300, "more than 200 deep"),
        (b'<?xml version="1.0" encoding="idna"?><a/>', "does not begin with <net>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_refused(tmp_path: Path, graph: bytes, sentence: str) -> None:
    with pytest.raises(Objection, match=sentence):
        inspect(tmp_path, graph)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Objection, match="they do not belong together"):
        inspect(tmp_path, GRAPH, WEIGHTS[:-1])


@given(
    st.lists(
        st.tuples(st.integers(0, len(GRAPH) - 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4
    ),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_described_or_refused(tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    content = bytearray(GRAPH)
    for position, value in damage:
        content[position : position + len(value)] = value
    with suppress(Objection):
        found = inspect(tmp_path, bytes(content))
        assert found["inputs"]
        assert found["outputs"]
