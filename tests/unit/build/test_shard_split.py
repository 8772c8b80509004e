"""Models that were taken apart are still the models that they were: any model of the onnx package."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

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
from edgemodel_operator.build.shard.proof import print_model
from edgemodel_operator.build.shard.skeleton import splice_shards
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.split import split_model
from edgemodel_operator.oci.splice import Spliced, write_content
from support.build import make_onnx, sha256

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

    @settings(max_examples=30, deadline=None)
    @given(models(), st.sampled_from([0, 1024]), st.sampled_from(Sharding))
    def test_is_the_same_when_its_weights_were_in_another_file(
        self, content: bytes, threshold: int, sharding: Sharding
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            model = onnx.load_from_string(content)
            onnx.save_model(
                model,
                root / "m.onnx",
                save_as_external_data=True,
                location="w.data",
                size_threshold=threshold,
            )
            saved = {path.name: path.read_bytes() for path in sorted(root.iterdir())}
            parts = split(save(root / "source", saved), root, sharding)
            loaded = onnx.load(unpack(parts, root / "image"))
            assert inline(loaded) == inline(onnx.load(root / "m.onnx"))

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


def make_external(layout: Mapping[str, tuple[str, int, int | None]], *, nodes: Sequence[Any] = ()) -> bytes:
    """Make a model whose initializers of bytes lie elsewhere: name -> location, offset, length."""
    tensors = []
    for name, (location, offset, length) in layout.items():
        tensor = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[length or 1])
        tensor.data_location = TensorProto.EXTERNAL
        given = {"location": location, "offset": str(offset)} | ({"length": str(length)} if length else {})
        for key, value in given.items():
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    used = [helper.make_node("Identity", [name], [f"v-{name}"]) for name in layout]
    content: bytes = helper.make_model(
        helper.make_graph([*nodes, *used], "g", [], [], tensors)
    ).SerializeToString()
    return content


def noise(size: int) -> bytes:
    return np.random.default_rng(7).bytes(size)


@pytest.mark.usefixtures("low_bounds")
class TestWeightsInOtherFiles:
    DATA = noise(20 * KIB)
    LAYOUT: ClassVar = {
        "a": ("w.data", 0, 9 * KIB),
        "b": ("w.data", 9 * KIB, 8 * KIB),
        "c": ("w.data", 17 * KIB, None),
    }

    def test_are_cut_into_shards_of_their_own(self, tmp_path: Path) -> None:
        parts = split(save(tmp_path, {"m.onnx": make_external(self.LAYOUT), "w.data": self.DATA}), tmp_path)
        assert names_of(parts)[-1] == ["model.onnx"]
        assert all(name.startswith("s") for layer in names_of(parts)[:-1] for name in layer)
        loaded = onnx.load(unpack(parts, tmp_path / "image"))
        raw = [tensor.raw_data for tensor in loaded.graph.initializer]
        assert b"".join(raw) == self.DATA
        assert parts.rewritten

    def test_stay_as_they_are_without_sharding(self, tmp_path: Path) -> None:
        files = save(tmp_path, {"m.onnx": make_external(self.LAYOUT), "w.data": self.DATA})
        parts = split(files, tmp_path, Sharding.DISABLED)
        assert names_of(parts) == [["model.onnx", "w.data"]]
        assert [piece.sha256 for piece in parts.pieces] == [file.sha256 for file in files]
        assert not parts.rewritten

    def test_the_only_file_beside_the_model_may_have_any_name(self, tmp_path: Path) -> None:
        files = save(tmp_path, {"m.onnx": make_external(self.LAYOUT), "download?v=2": self.DATA})
        assert names_of(split(files, tmp_path, Sharding.DISABLED)) == [["model.onnx", "w.data"]]

    def test_files_that_the_model_does_not_refer_to_stay_out(self, tmp_path: Path) -> None:
        files = save(
            tmp_path, {"m.onnx": make_external(self.LAYOUT), "w.data": self.DATA, "README": b"hello"}
        )
        assert names_of(split(files, tmp_path, Sharding.DISABLED)) == [["model.onnx", "w.data"]]

    def test_what_must_stay_beside_stays(self, tmp_path: Path) -> None:
        fixed = TensorProto(name="k", data_type=TensorProto.UINT8, dims=[4])
        fixed.data_location = TensorProto.EXTERNAL
        fixed.external_data.add(key="location", value="./sub/constants.bin")
        constant = helper.make_node("Constant", [], ["k"], value=fixed)
        model = make_external(self.LAYOUT, nodes=[constant])
        given = {"m.onnx": model, "w.data": self.DATA, "sub/constants.bin": b"abcd"}
        parts = split(save(tmp_path, given), tmp_path)
        assert names_of(parts)[-1] == ["model.onnx", "sub/constants.bin"]
        loaded = onnx.load(unpack(parts, tmp_path / "image"))
        assert loaded.graph.node[0].attribute[0].t.raw_data == b"abcd"

    def test_tensors_that_share_their_bytes_share_them_in_the_shard(self, tmp_path: Path) -> None:
        layout = {**self.LAYOUT, "tied": ("w.data", 0, 9 * KIB)}
        parts = split(save(tmp_path, {"m.onnx": make_external(layout), "w.data": self.DATA}), tmp_path)
        assert sum(piece.size for piece in parts.pieces if piece.name != "model.onnx") < 21 * KIB
        loaded = onnx.load(unpack(parts, tmp_path / "image"))
        assert loaded.graph.initializer[0].raw_data == loaded.graph.initializer[3].raw_data

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"b": ("w.data", 8 * KIB, 8 * KIB)}, "overlap"),
            ({"b": ("w.data", 16 * KIB, 8 * KIB)}, "beyond the end of 'w.data', which has 20480 bytes"),
            ({"c": ("w.data", 21 * KIB, None)}, "beyond the end"),
            ({"b": ("", 0, 1)}, "does not say clearly"),
            ({"b": ("other.data", 0, 1)}, "lie in 'other.data', which is not among its files"),
        ],
    )
    def test_nonsense_is_refused_in_a_sentence(
        self, change: dict[str, tuple[str, int, int | None]], sentence: str, tmp_path: Path
    ) -> None:
        given = {"m.onnx": make_external(self.LAYOUT | change), "w.data": self.DATA}
        assert sentence in refusal_of(given, tmp_path)

    @pytest.mark.parametrize(
        "location", ["../w.data", "/w.data", "a/../w.data", "manifest.json", "MODEL.onnx", "x.so", "x.so.1"]
    )
    def test_a_file_never_gets_a_dangerous_name(self, location: str, tmp_path: Path) -> None:
        files = save(tmp_path, {"m.onnx": make_external({"a": (location, 0, 4)}), "w.data": b"abcd"})
        with pytest.raises(BuildError):
            split(files, tmp_path, Sharding.DISABLED)


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


GRAPH = field(7, field(2, b"g"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "its graph is empty"),
        (b"<!DOCTYPE html><title>404</title>", "cannot be decoded"),
        (GRAPH + GRAPH, "two graphs"),
        (GRAPH[:-1], "cut off"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut off"),
        (b"\x3a" + b"\xff" * 12, "cut off"),
        (GRAPH + b"\x0b\x0c", "cannot be decoded"),
        (field(7, field(5, field(8, b"n" * 70_000))), "name of more than 64 KiB"),
        (field(7, b"\x28\x01"), "cannot be decoded"),
        (field(7, field(5, b"\x70\x01" + field(13, field(1, b"\xff")))), "not UTF-8"),
        (field(7, field(5, b"\x70\x01" + field(13, field(1, b"location")) * 2)), "does not say clearly"),
        (
            field(7, field(5, b"\x70\x01" + field(13, field(1, b"location") + field(2, b"x"))
                           + field(13, field(1, b"offset") + field(2, b"-1")))),
            "no number",
        ),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    assert sentence in refusal_of({"m.onnx": content}, tmp_path)


@pytest.mark.parametrize(("depth", "taken"), [(30, True), (40, False)])
def test_graphs_are_read_as_deep_as_others_read_them(depth: int, taken: bool, tmp_path: Path) -> None:
    content = b""
    for _ in range(depth):
        content = field(1, field(5, field(6, content)))  # node, attribute, graph
    given = {"m.onnx": field(7, content)}
    if taken:
        assert not split(save(tmp_path, given), tmp_path).rewritten
    else:
        assert "nested deeper" in refusal_of(given, tmp_path)


def test_a_tensor_that_repeats_itself_costs_no_memory(tmp_path: Path) -> None:
    many = field(7, field(5, field(9, b"x") * 1000))
    assert "over and over" in refusal_of({"m.onnx": many}, tmp_path)


@pytest.mark.usefixtures("low_bounds")
def test_the_graph_keeps_what_runtimes_want_to_see_there(tmp_path: Path) -> None:
    model = onnx.load_from_string(make_onnx(64))
    model.graph.initializer.append(numpy_helper.from_array(np.arange(100), "shape"))
    model.graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [999], [1.0] * 999))
    parts = split(save(tmp_path, {"m.onnx": model.SerializeToString()}), tmp_path)
    graph = onnx.load(unpack(parts, tmp_path / "image"), load_external_data=False).graph
    kept = {tensor.name for tensor in graph.initializer if tensor.data_location != TensorProto.EXTERNAL}
    assert kept == {"shape", "typed"}
    assert parts.skeleton.stat().st_size < 6 * KIB


@pytest.mark.usefixtures("low_bounds")
def test_more_weights_than_can_be_kept_in_mind_stay_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemodel_operator.build.shard.scan.MOST_WEIGHTS", 0)
    assert not split(save(tmp_path, {"m.onnx": make_onnx(64)}), tmp_path).rewritten


def test_small_models_and_those_of_the_careful_stay_whole(tmp_path: Path) -> None:
    small, large = save(tmp_path, {"small.onnx": make_onnx(100), "large.onnx": make_onnx(1600)})
    assert split([small], tmp_path).main.content == small.path
    assert split([large], tmp_path, Sharding.DISABLED).main.content == large.path
    assert split([large], tmp_path).rewritten


def test_a_print_tells_a_changed_weight_and_a_changed_word(tmp_path: Path) -> None:
    def print_of(content: bytes) -> str:
        (tmp_path / "m.onnx").write_bytes(content)
        return print_model(tmp_path / "m.onnx", lambda external: b"")

    content = make_onnx(8)
    weights = content.index(
        numpy_helper.to_array(onnx.load_from_string(content).graph.initializer[0]).tobytes()
    )
    one_bit = content[:weights] + bytes([content[weights] ^ 1]) + content[weights + 1 :]
    one_word = content.replace(b"multiply", b"multipli")
    assert len({print_of(content), print_of(one_bit), print_of(one_word)}) == 3


@pytest.mark.usefixtures("low_bounds")
def test_parts_that_are_not_the_model_are_never_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = splice_shards

    def turn_a_bit(*arguments: Any) -> tuple[Spliced, ...]:
        first, *others = made(*arguments)
        return (Spliced((b"\x01", *first.stretch(1, first.size - 1).pieces)), *others)

    monkeypatch.setattr("edgemodel_operator.build.shard.split.splice_shards", turn_a_bit)
    with pytest.raises(BuildError, match="must never happen") as caught:
        split(save(tmp_path, {"m.onnx": make_onnx(64)}), tmp_path)
    assert caught.value.failure.reason is Reason.INTERNAL_ERROR
