"""What a manifest may declare about pictures: its faults and its contradictions to the model are named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ModelMaker

from edgemodel_server.datatypes import TensorSpec
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.inference import Signature
from edgemodel_server.manifest import read_source
from edgemodel_server.preprocessing.classes import Classes
from edgemodel_server.preprocessing.geometry import crops_too_much, fixed_frame, place
from edgemodel_server.preprocessing.pipeline import Pipeline, build_pipeline
from edgemodel_server.preprocessing.schema import Quantization, parse_preprocessing
from edgemodel_server.startup import Checks, prepare

STRETCH = {"mode": "Stretch", "width": 8, "height": 8}


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([], "preprocessing must be an object"),
        ({"colour": "RGB"}, "preprocessing has no field colour, only resize, crop, color, layout,"),
        ({"color": "rgb"}, "preprocessing.color must be one of RGB, BGR, GRAY"),
        ({"color": ["RGB"]}, "preprocessing.color must be one of"),
        ({"layout": "CNHW"}, "preprocessing.layout must be one of NCHW, NHWC, CHW, HWC, NHW, HW"),
        ({"layout": "HW"}, "layout HW has no channels, which only the color GRAY can do without"),
        ({"scale": 0}, "preprocessing.scale must be a number above 0"),
        ({"scale": True}, "preprocessing.scale must be a number above 0"),
        ({"scale": float("nan")}, "preprocessing.scale must be a number above 0"),
        ({"scale": 10**400}, "preprocessing.scale must be a number above 0"),
        ({"mean": 0.5}, "preprocessing.mean must be a list of one number, or of 3"),
        ({"mean": [1, 2]}, "preprocessing.mean must be a list of one number, or of 3"),
        ({"mean": [1, 2, "3"]}, "preprocessing.mean must be a list of one number, or of 3"),
        ({"color": "GRAY", "mean": [1, 2, 3]}, "preprocessing.mean must be a list of one number"),
        ({"std": [1, 0, 1]}, "preprocessing.std must be above 0"),
        ({"crop": {"width": 1}}, "preprocessing.crop.height must be a whole number from 1 to 4096"),
        ({"crop": {"width": 1, "height": 1.0}}, "preprocessing.crop.height must be a whole number"),
        ({"resize": None}, "preprocessing.resize must be an object"),
        ({"resize": {}}, "preprocessing.resize.mode must be one of Stretch, ShorterSide, Letterbox"),
        ({"resize": {"mode": "Stretch", "size": 8}}, "size does not belong to the mode Stretch: write width"),
        ({"resize": {"mode": "ShorterSide", "width": 8}}, "width does not belong to the mode ShorterSide"),
        ({"resize": {**STRETCH, "width": 4097}}, "resize.width must be a whole number from 1 to 4096"),
        ({"resize": {**STRETCH, "anchor": "Center"}}, "resize.anchor belongs to the mode Letterbox only"),
        ({"resize": {**STRETCH, "interpolation": "Area"}}, "must be one of Nearest, Bilinear, Bicubic"),
        (
            {"resize": {**STRETCH, "mode": "Letterbox", "padColor": [256]}},
            "resize.padColor must hold whole numbers from 0 to 255",
        ),
        ({"quantization": {"scale": -1}}, "preprocessing.quantization.scale must be a number above 0"),
        ({"quantization": {"scale": 1, "zeroPoint": 256}}, "zeroPoint must be a whole number from -128 to"),
        ({"classification": {"labels": []}}, "labels must be a list that is not empty"),
        ({"classification": {"labels": ["a", "b\n"]}}, "label 1 must be one line of at most 256"),
        ({"classification": {"labels": ["a" * 257]}}, "label 0 must be one line of at most 256"),
        ({"classification": {"labels": ["\ud800"]}}, "label 0 must be one line"),
        (
            {"classification": {"labels": ["a"], "labelsFile": "b"}},
            "labelsFile and labels exclude each other",
        ),
        ({"classification": {"labelsFile": "none.txt"}}, "labelsFile: none.txt is not in files"),
        ({"classification": {"output": ""}}, "classification.output must be a text that is not empty"),
        ({"classification": {"top": 0}}, "classification.top must be a whole number from 1 to 1000"),
        ({"classification": {"softmax": 1}}, "classification.softmax must be true or false"),
        ({"classification": {"quantization": 1}}, "classification.quantization must be an object"),
    ],
)
def test_a_faulty_declaration_is_named(
    models: ModelMaker, tmp_path: Path, document: Any, sentence: str
) -> None:
    folder = models.identity(tmp_path / "model.onnx", "FP32", [1, 3, 8, 8]).parent
    models.write_manifest(folder, "m", preprocessing=document)
    with pytest.raises(StartError) as caught:
        read_source(folder)
    assert caught.value.reason is Reason.LOAD_FAILED
    assert sentence in caught.value.message
    assert "manifest.json is no model manifest" in caught.value.message


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["RGB", "GRAY", "NCHW", "HW", "Stretch", "ShorterSide", "Letterbox", "TopLeft", ""]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "resize", "crop", "color", "layout", "scale", "mean", "std", "quantization", "classification",
            "mode", "width", "height", "size", "padColor", "anchor", "labels", "top", "zeroPoint", "output",
        ]),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@given(VALUES)
def test_noise_is_a_declaration_or_refused(document: Any) -> None:
    try:
        outcome = len(parse_preprocessing(document).mean)
    except ValueError as error:
        assert str(error).startswith("preprocessing")  # noqa: PT017 - either outcome is right
        return
    assert outcome in (1, 3)


def build(
    document: dict[str, Any],
    inputs: list[tuple[str, list[int]]],
    outputs: list[tuple[str, list[int]]] | None = None,
    folder: Path = Path(),
) -> Pipeline:
    """Build the pipeline of a model with these inputs and outputs: (datatype, shape) each."""
    named_inputs = {
        f"x{n}": TensorSpec(f"x{n}", kind, tuple(shape)) for n, (kind, shape) in enumerate(inputs)
    }
    named_outputs = {
        f"y{n}": TensorSpec(f"y{n}", kind, tuple(shape))
        for n, (kind, shape) in enumerate(outputs or [("FP32", [1, 4])])
    }
    return build_pipeline(parse_preprocessing(document), Signature(named_inputs, named_outputs), folder)


IMAGE = [("FP32", [1, 3, 8, 8])]


@pytest.mark.parametrize(
    ("document", "inputs", "outputs", "sentence"),
    [
        ({}, IMAGE * 2, None, "the model has 2 inputs, a picture can fill only one"),
        ({}, [("INT64", [1, 3, 8, 8])], None, '"x0" is INT64, a picture can be FP32, FP16, UINT8, INT8'),
        ({"layout": "NHWC"}, IMAGE, None, 'gives shape [1, -1, -1, 3], input "x0" has [1, 3, 8, 8]'),
        ({"color": "GRAY"}, IMAGE, None, "gives shape [1, 1, -1, -1]"),
        ({"layout": "CHW"}, IMAGE, None, "gives shape [3, -1, -1]"),
        ({}, [("FP32", [2, 3, 8, 8])], None, "has [2, 3, 8, 8]"),
        ({"resize": {**STRETCH, "width": 9}}, IMAGE, None, "gives shape [1, 3, 8, 9]"),
        ({"crop": {"width": 8, "height": 7}}, IMAGE, None, "gives shape [1, 3, 7, 8]"),
        (
            {"resize": STRETCH, "crop": {"width": 9, "height": 8}},
            [("FP32", [1, 3, -1, -1])],
            None,
            "the crop is larger than what the resize leaves",
        ),
        ({"quantization": {"scale": 1}}, IMAGE, None, "quantization is for inputs of INT8 and UINT8"),
        ({}, [("INT8", [1, 3, 8, 8])], None, "the model takes INT8: give the quantization of its input"),
        ({"scale": 1000}, [("FP16", [1, 3, 8, 8])], None, "give values up to 255000, too large for FP16"),
        (
            {"classification": {}},
            IMAGE,
            [("FP32", [1, 4]), ("FP32", [1, 2])],
            'classification.output must say which output holds the scores: one of "y0", "y1"',
        ),
        ({"classification": {"output": "z"}}, IMAGE, None, 'output is "z", the model has "y0"'),
        ({"classification": {}}, IMAGE, [("BYTES", [1, 4])], "holds BYTES, no scores"),
        ({"classification": {}}, IMAGE, [("FP32", [1, 4, 4])], "[1, 4, 4], not one score per class"),
        ({"classification": {"labels": ["a"]}}, IMAGE, None, "has 4 scores, but there are 1 labels"),
    ],
)  # fmt: skip
def test_a_declaration_that_the_model_contradicts_is_named(
    document: dict[str, Any], inputs: Any, outputs: Any, sentence: str
) -> None:
    with pytest.raises(StartError) as caught:
        build(document, inputs, outputs)
    assert caught.value.reason is Reason.LOAD_FAILED
    assert sentence in caught.value.message


def test_a_contradiction_fails_the_start_of_the_model(models: ModelMaker, tmp_path: Path) -> None:
    folder = models.identity(tmp_path / "model.onnx", "FP32", [1, 3, 8, 8]).parent
    models.write_manifest(folder, "m", preprocessing={"layout": "NHWC"})
    with pytest.raises(StartError, match="preprocessing does not fit the model: NHWC of RGB") as caught:
        prepare(read_source(folder), Checks())
    assert caught.value.reason is Reason.LOAD_FAILED


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"a\nb\nc\nd\n", ("a", "b", "c", "d")),
        (b"a\r\nb b\r\n\r\nL\xc3\xb6we", ("a", "b b", "", "Löwe")),
        (b"a\nb\nc\nd\n\n", "has 4 scores, but there are 5 labels"),
        (b"a\nb\nc\nd\xff\n", "is not UTF-8 text"),
        (b"a\nb\tc\nd\ne", "label 1 must be one line"),
    ],
)
def test_labels_may_stand_in_a_file(
    models: ModelMaker, tmp_path: Path, text: bytes, want: tuple[str, ...] | str
) -> None:
    models.identity(tmp_path / "model.onnx", "UINT8", [1, 1, 2, 2])
    (tmp_path / "labels.txt").write_bytes(text)
    declared = {"color": "GRAY", "classification": {"labelsFile": "labels.txt"}}
    models.write_manifest(tmp_path, "m", preprocessing=declared)
    source = read_source(tmp_path)
    assert source.preprocessing is not None
    signature = Signature(
        {"x": TensorSpec("x", "UINT8", (1, 1, 2, 2))}, {"y": TensorSpec("y", "FP32", (1, 4))}
    )
    try:
        classes = build_pipeline(source.preprocessing, signature, tmp_path).classes
        assert classes is not None
        outcome: tuple[str, ...] | str | None = classes.labels
    except StartError as error:
        outcome = error.message
    assert outcome == want or (isinstance(want, str) and want in str(outcome))


# -- classes -------------------------------------------------------------------------------------------------


def name(scores: Any, labels: tuple[str, ...] | None = None, **changes: Any) -> list[str]:
    """Give what is told of scores."""
    options: dict[str, Any] = {"softmax": False, "top": 5, "quantization": None, **changes}
    shape = tuple(-1 for _ in np.shape(scores))
    classes = Classes(TensorSpec("y", "FP32", shape), labels, **options)
    return [text.decode() for text in classes.name(np.asarray(scores), None)[0]]


def test_the_best_classes_come_first_and_equal_ones_in_their_order() -> None:
    assert name([[0.25, 0.5, 0.5, 0.125]], top=3) == ["0.500000:1", "0.500000:2", "0.250000:0"]
    assert name([[[[3.0]], [[-1.0]]]], ("a", "")) == ["3.000000:0:a", "-1.000000:1:"]
    assert name([7.0]) == ["7.000000:0"]
    assert name(7.0) == ["7.000000:0"]


def test_softmax_stands_large_logits() -> None:
    assert name([[1000.0, 1000.0, -1000.0]], softmax=True) == ["0.500000:0", "0.500000:1", "0.000000:2"]


def test_quantized_scores_are_told_as_real_numbers() -> None:
    scores = np.array([[-128, 127, 0]], dtype=np.int8)
    got = name(scores, quantization=Quantization(1 / 256, -128))
    assert got == ["0.996094:1", "0.500000:2", "0.000000:0"]


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ([[1.0, float("nan")]], "NaN or infinity"),
        ([[1.0, 2.0], [3.0, 4.0]], "has shape [2, 2], not one score per class"),
        ([[1.0, 2.0, 3.0]], "has 3 scores, but there are 2 labels"),
        (np.zeros((1, 0)), "not one score per class"),
    ],
)
def test_what_is_no_list_of_scores_is_the_fault_of_the_model(scores: Any, sentence: str) -> None:
    with pytest.raises(ApiError) as caught:
        name(scores, ("a", "b"))
    assert caught.value.status == 500
    assert sentence in caught.value.message


# -- places --------------------------------------------------------------------------------------------------

SIDES = st.integers(1, 5000)
DECLARATIONS = st.fixed_dictionaries(
    {},
    optional={
        "resize": st.one_of(
            st.fixed_dictionaries({"mode": st.just("Stretch"), "width": SIDES, "height": SIDES}),
            st.fixed_dictionaries({"mode": st.just("ShorterSide"), "size": SIDES}),
            st.fixed_dictionaries(
                {"mode": st.just("Letterbox"), "width": SIDES, "height": SIDES},
                optional={"anchor": st.sampled_from(["Center", "TopLeft"])},
            ),
        ),
        "crop": st.fixed_dictionaries({"width": SIDES, "height": SIDES}),
    },
)


@given(DECLARATIONS, st.tuples(SIDES, SIDES))
def test_a_placement_fills_the_frame_that_was_promised(
    document: dict[str, Any], source: tuple[int, int]
) -> None:
    try:
        preprocessing = parse_preprocessing(json.loads(json.dumps(document)))
        placement = place(preprocessing, source)
    except (ValueError, ApiError):
        return
    assert not crops_too_much(preprocessing)
    assert placement.frame == (fixed_frame(preprocessing) or placement.scaled)
    for axis in (0, 1):
        start, end = placement.offset[axis], placement.offset[axis] + placement.scaled[axis]
        assert min(placement.scaled[axis], placement.frame[axis]) >= 1
        if "crop" not in document:
            assert 0 <= start < end <= placement.frame[axis]
        if "crop" in document and "resize" not in document:
            assert start <= 0, "a crop adds nothing"
            assert abs(placement.frame[axis] - end - start) <= 1, "it is not the middle"
