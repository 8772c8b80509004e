"""Which files of a source are the model, and how they are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.api.model import ModelFormat, ModelSpec, Origin
from edgemodel_operator.build.sources.contents import NoModel, choose_files
from edgemodel_operator.build.sources.download import Pace
from edgemodel_operator.build.sources.names import local_names
from edgemodel_operator.build.sources.wanted import Want, fits, wanted_files
from edgemodel_operator.oci.layer import check_path

ONNX = Want((".onnx",), (".data", ".bin"), beside=True)
IR = Want((".xml",), (".bin",), same_stem=True)
TFLITE = Want((".tflite",))
SAVED_MODEL = Want(("saved_model.pb",), beside=True)


@pytest.mark.parametrize("model_format", ModelFormat)
def test_every_format_wants_the_files_that_it_is_made_of(model_format: ModelFormat) -> None:
    files = {"url": "https://x/m", "weights": {"url": "https://x/w"}}
    http = files if model_format is not ModelFormat.TFLITE else {"url": "https://x/m"}
    want = wanted_files(
        ModelSpec.model_validate({"format": model_format, "version": "1", "source": {"http": http}})
    )
    main, *weights = model_format.suffixes
    assert main in want.main
    assert set(weights) <= set(want.weights)


@pytest.mark.parametrize("origin", Origin)
def test_every_origin_wants_a_file_of_its_own(origin: Origin) -> None:
    spec = {
        "format": "ONNX" if origin.value in {"PyTorchExport", "TorchScript"} else "TFLite",
        "version": "1",
        "source": {"http": {"url": "https://x/m"}, "archive": {}},
        "convert": {"origin": origin, "inputs": [{"datatype": "FP32", "shape": [1]}]},
    }
    want = wanted_files(ModelSpec.model_validate(spec))
    assert not set(want.main) & {".onnx", ".tflite", ".xml"}
    assert want.as_archive().main == (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")


@pytest.mark.parametrize(
    ("name", "endings", "fit"),
    [
        ("a/M.ONNX", (".onnx",), True),
        ("m.onnx.txt", (".onnx",), False),
        ("a/saved_model.pb", ("saved_model.pb",), True),
        ("a/my_saved_model.pb", ("saved_model.pb",), False),
        ("m.onnx/readme", (".onnx",), False),
    ],
)
def test_what_fits(name: str, endings: tuple[str, ...], *, fit: bool) -> None:
    assert fits(name, endings) is fit


@pytest.mark.parametrize(
    ("paths", "want", "path", "chosen"),
    [
        (["README", "m.onnx"], ONNX, "", ("m.onnx", "README")),
        (["a/m.onnx", "a/w.data", "b/x"], ONNX, "", ("a/m.onnx", "a/w.data")),
        (["m.onnx", "n.onnx", "w.data"], ONNX, "n.onnx", ("n.onnx", "m.onnx", "w.data")),
        (["a/m.onnx", "b/m.onnx"], ONNX, "b", ("b/m.onnx",)),
        (["a/m.onnx", "b/m.onnx"], ONNX, "/b/", ("b/m.onnx",)),
        (["odd.name", "b/m.onnx"], ONNX, "odd.name", ("odd.name", "b/m.onnx")),
        (["m.xml", "m.bin", "labels.txt"], IR, "", ("m.xml", "m.bin")),
        (["i/m.xml", "i/m.bin", "i/n.bin"], IR, "", ("i/m.xml", "i/m.bin")),
        (["m.xml", "weights.bin"], IR, "", ("m.xml", "weights.bin")),
        (["m.tflite", "labels.txt"], TFLITE, "", ("m.tflite",)),
        (
            ["s/saved_model.pb", "s/variables/variables.index", "s/variables/variables.data-0", "x"],
            SAVED_MODEL,
            "s",
            ("s/saved_model.pb", "s/variables/variables.data-0", "s/variables/variables.index"),
        ),
        (["saved_model.pb", "assets/words"], SAVED_MODEL, "", ("saved_model.pb", "assets/words")),
    ],
)
def test_the_files_of_a_model_in_an_archive(
    paths: list[str], want: Want, path: str, chosen: tuple[str, ...]
) -> None:
    assert choose_files(paths, want, path) == chosen


@pytest.mark.parametrize(
    ("paths", "want", "path", "words"),
    [
        (["a.onnx", "b.onnx"], ONNX, "", r"2 files in it could be meant \(a.onnx, b.onnx\): name one by"),
        (["a", "b"], ONNX, "", "no .onnx file in it; it holds a, b."),
        ([f"{n}" for n in range(9)], ONNX, "", "it holds 0, 1, 2, 3, 4 and 4 more"),
        (["a/m.onnx"], ONNX, "b", "no .onnx file in 'b'"),
        (["ab/m.onnx"], ONNX, "a", "no .onnx file in 'a'"),
        (["m.xml"], IR, "", "no .bin file beside it"),
        (["m.xml", "a.bin", "b.bin"], IR, "", "2 .bin files beside it"),
        (["a/m.xml", "m.bin"], IR, "", "no .bin file beside it"),
    ],
)
def test_an_archive_that_does_not_say_which(paths: list[str], want: Want, path: str, words: str) -> None:
    with pytest.raises(NoModel, match=words):
        choose_files(paths, want, path)


@pytest.mark.parametrize(
    ("called", "names"),
    [
        (("exports/7/model.onnx",), ("model.onnx",)),
        (("m/model.onnx", "m/weights/w.data"), ("model.onnx", "weights/w.data")),
        (("m/model.onnx", "n/w.data"), ("model.onnx", "w.data")),
        (("model.onnx", "n/w.data"), ("model.onnx", "w.data")),
        (("graph", "Graph"), ("model.onnx", "weights.data")),
        (("d/m.onnx", "d/M.onnx/w.data"), ("model.onnx", "weights.data")),
        (("",), ("model.onnx",)),
        (("..", "a\\b"), ("model.onnx", "weights.data")),
        (("m.onnx", "m/../../x"), ("m.onnx", "x")),
        (("x" * 300 + ".onnx",), ("model.onnx",)),
    ],
)
def test_names_on_the_local_disk(called: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert local_names(called, ONNX) == names


@given(st.lists(st.text(max_size=20), min_size=1, max_size=2).map(tuple))
def test_whatever_a_source_calls_its_files_they_get_plain_names(called: tuple[str, ...]) -> None:
    names = local_names(called, ONNX)
    for name in names:
        check_path(name)
    assert len({name.casefold() for name in names}) == len(called)


def test_the_pace_is_judged_by_windows() -> None:
    pace = Pace(10.0, 100, now=0.0)
    assert pace.keeps(1, now=9.9)
    assert pace.keeps(1099, now=11.0)
    assert pace.keeps(5, now=20.9)
    assert not pace.keeps(5, now=21.0)
