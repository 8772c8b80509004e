"""What an EdgeModel may say about pictures is what the server takes in a manifest, no more and no less."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgemodel_operator.api.preprocessing import Preprocessing
from edgemodel_server.preprocessing.schema import parse_preprocessing


def mostly(usual: st.SearchStrategy[Any], *odd: Any) -> st.SearchStrategy[Any]:
    """Draw what is right most of the time: a document with one mistake tells more than one with ten."""
    return st.integers(0, 19).flatmap(lambda roll: usual if roll else st.sampled_from(odd))


SIDES = mostly(st.integers(1, 4096), 0, 4097)
POSITIVE = mostly(st.floats(1e-6, 300) | st.integers(1, 300), 0, -1.5)
NUMBERS = st.floats(-300, 300) | st.integers(-300, 300)
CHANNELS = mostly(st.sampled_from([1, 3]), 0, 2, 4)
LEVELS = mostly(st.integers(0, 255), -1, 256)
FILTERS = mostly(st.sampled_from(["Nearest", "Bilinear", "Bicubic", "Lanczos"]), "Area")
LABELS = mostly(st.text(st.characters(categories=["L", "N", "P"]), max_size=4), "a\nb", "\u2028", "\xa0")


def per_channel(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return CHANNELS.flatmap(lambda count: st.lists(values, min_size=count, max_size=count))


QUANTIZATION = st.fixed_dictionaries(
    {"scale": POSITIVE}, optional={"zeroPoint": mostly(st.integers(-128, 255), -129, 256)}
)
FRAME: dict[str, st.SearchStrategy[Any]] = {"width": SIDES, "height": SIDES}
RESIZE = st.one_of(
    st.fixed_dictionaries(
        {"mode": st.just("ShorterSide"), "size": SIDES}, optional={"interpolation": FILTERS}
    ),
    st.fixed_dictionaries({"mode": st.just("Stretch"), **FRAME}, optional={"interpolation": FILTERS}),
    st.fixed_dictionaries(
        {"mode": st.just("Letterbox"), **FRAME},
        optional={"padColor": per_channel(LEVELS), "anchor": mostly(st.just("TopLeft"), "Top")},
    ),
    st.fixed_dictionaries(
        {"mode": mostly(st.sampled_from(["Stretch", "ShorterSide", "Letterbox"]), "Tile")},
        optional={**FRAME, "size": SIDES, "padColor": per_channel(LEVELS), "anchor": st.just("Center")},
    ),
)
CLASSIFICATION = st.fixed_dictionaries(
    {},
    optional={
        "output": mostly(st.text(min_size=1, max_size=3), ""),
        "labels": mostly(st.lists(LABELS, min_size=1, max_size=3), []),
        "softmax": st.booleans(),
        "top": mostly(st.integers(1, 1000), 0, 1001),
        "quantization": QUANTIZATION,
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "resize": RESIZE,
        "crop": st.fixed_dictionaries(FRAME),
        "color": mostly(st.sampled_from(["RGB", "BGR", "GRAY"]), "CMYK"),
        "layout": mostly(st.sampled_from(["NCHW", "NHWC", "CHW", "HWC", "NHW", "HW"]), "WH"),
        "scale": POSITIVE,
        "mean": per_channel(NUMBERS),
        "std": per_channel(POSITIVE),
        "quantization": QUANTIZATION,
        "classification": CLASSIFICATION,
    },
)


def read_by_the_server(document: Any) -> object:
    try:
        return parse_preprocessing(document)
    except ValueError:
        return None


@given(DOCUMENTS)
@example({"resize": {"mode": "Letterbox", "width": 1, "height": 1, "padColor": []}})
@settings(max_examples=500, deadline=None)
def test_the_server_takes_what_an_edgemodel_may_say(document: dict[str, Any]) -> None:
    theirs = read_by_the_server(document)
    try:
        ours = Preprocessing.model_validate(document)
    except ValidationError:
        assert theirs is None
    else:
        assert theirs is not None
        assert read_by_the_server(ours.to_raw()) == theirs
