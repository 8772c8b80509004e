"""Models that were taken apart are still the models that they were: any model of the onnx package."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgemodel_operator.api.image import Sharding
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.parts import ModelParts
from edgemodel_operator.build.shard import plan
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.split import split_model
from edgemodel_operator.oci.splice import write_content
from support.build import sha256

KIB = 1024


@pytest.fixture
def low_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shard small models, so that a test has many of them in a second."""
    monkeypatch.setattr(plan, "SMALLEST_BYTES", 8 * KIB)
    monkeypatch.setattr(plan, "SHARD_BYTES", 4 * KIB)
    monkeypatch.setattr(plan, "HEAD_BYTES", 2 * KIB)


def save(folder: Path, contents: Mapping[str, bytes]) -> list[SourceFile]:
    """Write the files as a source leaves them, the model first."""
    files = []
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files.append(SourceFile(path, name, sha256(content), len(content)))
    return files


def split(files: Sequence[SourceFile], work: Path, sharding: Sharding = Sharding.AUTO) -> ModelParts:
    return asyncio.run(split_model(ModelFormat.ONNX, files, sharding, work))


def unpack(parts: ModelParts, folder: Path) -> Path:
    """Put the files into a folder, as a node has them; gives the model."""
    for piece in parts.pieces:
        (folder / piece.name).parent.mkdir(parents=True, exist_ok=True)
        assert write_content(piece.content, folder / piece.name) == (piece.sha256, piece.size)
    return folder / parts.main.name


def names_of(parts: ModelParts) -> list[list[str]]:
    return [[piece.name for piece in layer] for layer in parts.layers]


def refusal_of(contents: Mapping[str, bytes], folder: Path) -> str:
    with pytest.raises(BuildError) as caught:
        split(save(folder, contents), folder)
    assert caught.value.failure.reason is Reason.INVALID_MODEL
    return caught.value.failure.message


def inline(model: Any) -> Any:
    """Give a model with all initializers in one form, for comparison."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        rest = onnx.TensorProto()
        rest.CopyFrom(tensor)
        for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            rest.ClearField(name)
        rest.ClearField("data_location")
        rest.ClearField("external_data")
        rest.raw_data = b"" if tensor.data_type == TensorProto.STRING else array.tobytes()
        if tensor.data_type != TensorProto.STRING:
            tensor.CopyFrom(rest)
    return model


tensors = st.builds(
    lambda dtype, rows, columns, typed, doc, seed: (dtype, (rows, columns), typed, doc, seed),
    st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.float64, np.bool_]),
    st.integers(0, 40),
    st.integers(1, 60),
    st.booleans(),
    st.text(max_size=20),
    st.integers(0, 3),
)


def make_tensor(name: str, drawn: Any) -> Any:
    dtype, shape, typed, doc, seed = drawn
    array = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    if typed:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = helper.make_tensor(name, kind, shape, array.reshape(-1).tolist())
    else:
        tensor = numpy_helper.from_array(array, name)
    tensor.doc_string = doc
    return tensor


@st.composite
def models(draw: st.DrawFn) -> bytes:
    """Draw a model of nodes that use initializers in any order, some in subgraphs, some not at all."""
    drawn = draw(st.lists(tensors, min_size=1, max_size=12))
    initializers = [make_tensor(f"w{number}", one) for number, one in enumerate(drawn)]
    used = draw(st.lists(st.sampled_from([one.name for one in initializers]), max_size=12))
    nodes = [helper.make_node("Identity", [name], [f"v{number}"]) for number, name in enumerate(used)]
    if draw(st.booleans()):
        body = helper.make_graph([helper.make_node("Identity", ["w0"], ["b"])], "body", [], [],
                                 [make_tensor("inner", drawn[0])])  # fmt: skip
        nodes.insert(draw(st.integers(0, len(nodes))), helper.make_node("If", ["c"], ["i"], then_branch=body))
    if draw(st.booleans()):
        nodes.append(helper.make_node("Constant", [], ["k"], value=make_tensor("constant", drawn[-1])))
    graph = helper.make_graph(nodes, draw(st.text(max_size=9)), [], [], initializers)
    model = helper.make_model(graph, producer_name=draw(st.text(max_size=9)))
    for key in draw(st.lists(st.text(min_size=1, max_size=5), max_size=3, unique=True)):
        helper.set_model_props(model, {key: "value"})
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.usefixtures("low_bounds")
class TestAnyModel:
    @settings(max_examples=60, deadline=None)
    @given(models())
    def test_is_the_same_after_it_was_taken_apart(self, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            parts = split(save(root / "source", {"model.onnx": content}), root)
            loaded = onnx.load(unpack(parts, root / "image"))
            assert inline(loaded) == inline(onnx.load_from_string(content))
            assert parts.rewritten == (len(parts.layers) > 1)

    @settings(max_examples=40, deadline=None)
    @given(models(), st.integers(0, 4000), st.binary(min_size=1, max_size=3))
    def test_damage_is_refused_or_kept_never_a_crash(self, content: bytes, at: int, noise: bytes) -> None:
        at %= len(content)
        damaged = content[:at] + noise + content[at + len(noise) :]
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            try:
                parts = split(save(root / "source", {"model.onnx": damaged}), root)
            except BuildError as error:
                assert error.failure.reason is Reason.INVALID_MODEL  # noqa: PT017 - any outcome is fine but others
            else:
                unpack(parts, root / "image")

    @settings(max_examples=30, deadline=None)
    @given(models(), st.integers(0, 4000))
    def test_a_cut_file_is_never_taken_for_another_model(self, content: bytes, length: int) -> None:
        cut = content[: length % len(content)]
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            try:
                parts = split(save(root / "source", {"model.onnx": cut}), root)
            except BuildError as error:
                assert error.failure.reason is Reason.INVALID_MODEL  # noqa: PT017
            else:
                loaded = onnx.load(unpack(parts, root / "image"))
                assert inline(loaded) == inline(onnx.load_from_string(cut))
