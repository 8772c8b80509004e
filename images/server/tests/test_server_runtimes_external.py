"""The places of an ONNX file that may name other files: all are found, and no bytes confuse the reader."""

import struct
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgemodel_server.errors import Reason, StartError
from edgemodel_server.runtimes.onnx_external import check_external_data


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def attribute(**content: object) -> onnx.AttributeProto:
    return onnx.AttributeProto(name="value", **content)


def node_with(**content: object) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Any", output=["w"], attribute=[attribute(**content)])


def model_with(graph: onnx.GraphProto) -> onnx.ModelProto:
    return onnx.ModelProto(ir_version=8, graph=graph)


def places(secret: TensorProto) -> dict[str, onnx.ModelProto]:
    """A model for each place of onnx.proto that holds a tensor."""
    sparse = onnx.SparseTensorProto(values=secret)
    graph = onnx.GraphProto(name="inner", initializer=[secret])
    return {
        "initializer": model_with(graph),
        "sparse initializer": model_with(onnx.GraphProto(sparse_initializer=[sparse])),
        "indices": model_with(onnx.GraphProto(sparse_initializer=[onnx.SparseTensorProto(indices=secret)])),
        "attribute": model_with(onnx.GraphProto(node=[node_with(t=secret)])),
        "attribute's tensors": model_with(onnx.GraphProto(node=[node_with(tensors=[secret])])),
        "attribute's graph": model_with(onnx.GraphProto(node=[node_with(g=graph)])),
        "attribute's graphs": model_with(onnx.GraphProto(node=[node_with(graphs=[graph])])),
        "attribute's sparse tensor": model_with(onnx.GraphProto(node=[node_with(sparse_tensor=sparse)])),
        "attribute's sparse tensors": model_with(onnx.GraphProto(node=[node_with(sparse_tensors=[sparse])])),
        "function": onnx.ModelProto(functions=[onnx.FunctionProto(node=[node_with(t=secret)])]),
        "function's attribute": onnx.ModelProto(
            functions=[onnx.FunctionProto(attribute_proto=[attribute(t=secret)])]
        ),
    }


@pytest.mark.parametrize("place", sorted(places(TensorProto())))
def test_every_place_for_a_tensor_is_looked_at(tmp_path: Path, place: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(places(external("../secret"))[place].SerializeToString())
    with pytest.raises(StartError, match=r'takes weights from "\.\./secret"') as refused:
        check_external_data(path)
    assert refused.value.reason is Reason.LOAD_FAILED


def test_a_message_that_is_given_in_two_parts_is_read_whole(tmp_path: Path) -> None:
    """Protocol Buffers merges repeated fields: a second graph adds to the first."""
    path = tmp_path / "model.onnx"
    parts = [
        model_with(onnx.GraphProto(name="a")),
        model_with(onnx.GraphProto(initializer=[external("../secret")])),
    ]
    path.write_bytes(b"".join(part.SerializeToString() for part in parts))
    assert len(onnx.load_model(path, load_external_data=False).graph.initializer) == 1
    with pytest.raises(StartError, match="secret"):
        check_external_data(path)


def test_a_key_that_is_given_twice_counts_as_the_last(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    secret = external("w.bin")
    (tmp_path / "w.bin").write_bytes(struct.pack("<f", 1))
    path.write_bytes(model_with(onnx.GraphProto(initializer=[secret])).SerializeToString())
    check_external_data(path)
    secret.external_data.add(key="location", value="../secret")
    path.write_bytes(model_with(onnx.GraphProto(initializer=[secret])).SerializeToString())
    with pytest.raises(StartError, match="secret"):
        check_external_data(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    with pytest.raises(StartError, match="is empty"):
        check_external_data(path)


SOUND = model_with(
    helper.make_graph([node_with(t=external("w.bin"))], "graph", [], [], [external("../secret")])
).SerializeToString()


@given(st.data())
def test_no_bytes_end_in_anything_but_a_refusal(data: st.DataObject) -> None:
    """And whatever ONNX's own reader understands as leading out of the folder is refused."""
    changed = bytearray(SOUND)
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(changed[: data.draw(st.integers(0, len(changed)))]) + data.draw(st.binary(max_size=8))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        (path.parent / "w.bin").write_bytes(struct.pack("<f", 1))
        with suppress(StartError):  # anything else fails the test
            check_external_data(path)
            assert "../secret" not in locations_by_onnx(content)


def locations_by_onnx(content: bytes) -> list[str]:
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:
        return []
    return [
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    ]
