"""Reading OpenVINO IR that nobody vouches for: described, or refused in a sentence, whatever the bytes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.build.inspect.found import Found, Tensor
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.openvino import inspect_openvino
from support.formats import make_openvino

GRAPH, WEIGHTS = make_openvino(4)
BODY = b'<layers><layer id="0" name="%s" type="%s" version="opset1"><data %s/></layer></layers>'
LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<net version="11">&c;</net>"""
EXTERNAL = b"""<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]><net version="11">&a;</net>"""


def inspect(folder: Path, graph: bytes, weights_bytes: int = len(WEIGHTS)) -> Found:
    (folder / "model").write_bytes(graph)
    return inspect_openvino(folder / "model", weights_bytes)


def with_loop(body: bytes) -> bytes:
    """Put a loop with a body of its own into the graph."""
    loop = b'<layer id="9" name="loop" type="Loop" version="opset5"><body>' + body + b"</body></layer>"
    return GRAPH.replace(b"</layers>", loop + b"</layers>")


def test_a_model_is_described(tmp_path: Path) -> None:
    assert inspect(tmp_path, GRAPH) == Found(
        inputs=[Tensor("x", "FP32", ("-1", "4"))],
        outputs=[Tensor("y", "FP32", ("-1", "4"))],
        operator_sets={"opset": 1},
        operators=frozenset({"Parameter@1", "Const@1", "MatMul@1", "Result@1"}),
        parameters=16,
        memory_bytes=64 + 2 * 16,  # the weights, and at a batch of one the input beside the output
    )


def test_the_inputs_of_a_loop_are_not_those_of_the_model(tmp_path: Path) -> None:
    found = inspect(tmp_path, with_loop(BODY % (b"i", b"Parameter", b'shape="7" element_type="i64"')))
    assert found.inputs == [Tensor("x", "FP32", ("-1", "4"))]
    assert {"Loop@5", "Parameter@1"} <= found.operators
    assert found.operator_sets == {"opset": 5}


def test_operators_outside_of_the_own_sets_keep_the_name_of_theirs(tmp_path: Path) -> None:
    layer = b'<layer id="9" name="n" type="Normal" version="%s"></layer></layers>'
    for version in (b"extension", b"opset", b"opset99999", b"opset\xc2\xb2"):
        found = inspect(tmp_path, GRAPH.replace(b"</layers>", layer % version))
        assert f"{version.decode()}:Normal" in found.operators
        assert found.operator_sets == {"opset": 1}


def test_the_name_of_a_tensor_goes_before_that_of_its_layer(tmp_path: Path) -> None:
    found = inspect(tmp_path, GRAPH.replace(b'id="0" name="x"', b'id="0" name="Parameter_1"'))
    assert found.inputs[0].name == "x"


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
        (GRAPH.replace(b'element_type="f32"', b'element_type="bf16"', 1), "that clients cannot send"),
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
        inspect(tmp_path, GRAPH, len(WEIGHTS) - 1)


def test_a_graph_without_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Objection, match="no inputs or no outputs"):
        inspect(tmp_path, GRAPH.replace(b'"Result"', b'"Relu"')).to_raw()


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
        report = inspect(tmp_path, bytes(content)).to_raw()
        assert ModelReport.model_validate(report).inputs
