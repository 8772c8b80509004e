"""From the bytes of a picture to the model's input: every mode, layout and datatype, and what is refused."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import decode, draw, encode, expect_input
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgemodel_server.datatypes import Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.inference import Signature
from edgemodel_server.media import Encoding, PictureType, RawFormat, parse_picture_type
from edgemodel_server.preprocessing.pipeline import Pipeline, build_pipeline
from edgemodel_server.preprocessing.schema import parse_preprocessing

JPEG, PNG = PictureType(Encoding.JPEG), PictureType(Encoding.PNG)
MANY = 1 << 24
IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def make_pipeline(
    document: dict[str, Any],
    shape: tuple[int, ...] = (1, -1, -1, -1),
    datatype: str = "FP32",
    output: tuple[int, ...] = (1, 3),
    folder: Path = Path(),
) -> Pipeline:
    """Give the pipeline of a model with one input and one output."""
    signature = Signature({"x": TensorSpec("x", datatype, shape)}, {"y": TensorSpec("y", "FP32", output)})
    return build_pipeline(parse_preprocessing(document), signature, folder)


def make_input(body: bytes, kind: PictureType, document: dict[str, Any], **model: Any) -> Tensor:
    return make_pipeline(document, **model).make_input(body, kind, MANY)[0]


RESIZES: list[dict[str, Any]] = [
    {},
    {"crop": {"width": 33, "height": 20}},
    {"resize": {"mode": "Stretch", "width": 40, "height": 30}},
    {"resize": {"mode": "Stretch", "width": 200, "height": 300, "interpolation": "Bicubic"}},
    {"resize": {"mode": "Stretch", "width": 41, "height": 23, "interpolation": "Nearest"}},
    {"resize": {"mode": "ShorterSide", "size": 32}},
    {
        "resize": {"mode": "ShorterSide", "size": 32, "interpolation": "Lanczos"},
        "crop": {"width": 29, "height": 28},
    },
    {"resize": {"mode": "Letterbox", "width": 64, "height": 64}},
    {"resize": {"mode": "Letterbox", "width": 64, "height": 65, "anchor": "TopLeft", "padColor": [0]}},
    {
        "resize": {"mode": "Letterbox", "width": 150, "height": 64, "padColor": [9]},
        "crop": {"width": 149, "height": 51},
    },
]


@pytest.mark.parametrize("size", [(97, 71), (50, 120), (64, 64)])
@pytest.mark.parametrize("document", RESIZES, ids=lambda document: str(sorted(document.items()))[:60])
@pytest.mark.parametrize("color", ["RGB", "BGR", "GRAY"])
def test_sizes_and_colors(size: tuple[int, int], document: dict[str, Any], color: str) -> None:
    image = draw(*size)
    document = {**document, "color": color}
    want = expect_input(image, document)
    got = make_input(encode(image, "PNG"), PNG, document)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHW", "HWC", "NHW", "HW"])
@pytest.mark.parametrize(
    ("datatype", "numbers"),
    [
        ("FP32", {"scale": 1 / 255, "mean": [0.485], "std": [0.229]}),
        ("FP32", {"mean": [127.5], "std": [127.5]}),
        ("FP16", {"scale": 1 / 255}),
        ("UINT8", {}),
        ("UINT8", {"scale": 1 / 255, "quantization": {"scale": 0.0078125, "zeroPoint": 127}}),
        ("INT8", {"mean": [127.5], "std": [127.5], "quantization": {"scale": 0.00784, "zeroPoint": -1}}),
        ("INT8", {"quantization": {"scale": 1, "zeroPoint": -128}}),
    ],
)
def test_layouts_and_datatypes(layout: str, datatype: str, numbers: dict[str, Any]) -> None:
    image = draw(31, 17)
    document = {"layout": layout, "color": "GRAY" if "C" not in layout else "RGB", **numbers}
    dtype = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8, "INT8": np.int8}[datatype]
    shape = {"N": 1, "C": -1, "H": -1, "W": -1}
    got = make_input(
        encode(image, "PNG"), PNG, document, shape=tuple(shape[size] for size in layout), datatype=datatype
    )
    assert got.dtype == dtype
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expect_input(image, document, dtype))


def test_each_channel_has_its_mean_std_and_pad_color_in_the_order_of_the_colors() -> None:
    image = draw(40, 30)
    resize = {"mode": "Letterbox", "width": 40, "height": 40, "padColor": [10, 20, 30]}
    document = {"color": "BGR", "mean": [103.939, 116.779, 123.68], "std": [1, 2, 4], "resize": resize}
    got = make_input(encode(image, "PNG"), PNG, document)
    np.testing.assert_array_equal(got, expect_input(image, document))
    want = np.float32([(10 - 103.939) / 1, (20 - 116.779) / 2, (30 - 123.68) / 4])
    np.testing.assert_array_equal(got[0, :, 0, 0], want)


@pytest.mark.parametrize(
    "options",
    [{"quality": 90}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}],
    ids=str,
)
def test_a_jpeg_is_decoded_in_full_where_it_is_not_scaled_down_much(options: dict[str, Any]) -> None:
    body = encode(draw(160, 120), "JPEG", **options)
    document = {"resize": {"mode": "Stretch", "width": 96, "height": 64}, **IMAGENET}
    np.testing.assert_array_equal(make_input(body, JPEG, document), expect_input(decode(body), document))


@pytest.mark.parametrize("mode", ["Stretch", "Letterbox", "ShorterSide"])
def test_a_large_jpeg_is_decoded_smaller_and_hardly_differs(mode: str) -> None:
    body = encode(draw(801, 1203), "JPEG", quality=85)
    size = {"size": 64} if mode == "ShorterSide" else {"width": 64, "height": 64}
    document = {"resize": {"mode": mode, **size}}
    got, want = make_input(body, JPEG, document), expect_input(decode(body), document)
    assert got.shape == want.shape
    difference = np.abs(got - want)
    assert difference.max() > 0, "it was decoded in full"
    assert difference.mean() < 1
    np.testing.assert_array_equal(got, make_input(body, JPEG, document))


def test_nearest_takes_the_very_pixels_of_a_large_jpeg() -> None:
    body = encode(draw(640, 480), "JPEG")
    document = {"resize": {"mode": "Stretch", "width": 32, "height": 32, "interpolation": "Nearest"}}
    np.testing.assert_array_equal(make_input(body, JPEG, document), expect_input(decode(body), document))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encode(draw(90, 60), file_format, exif=exif)
    document = {"resize": {"mode": "ShorterSide", "size": 40}, "crop": {"width": 38, "height": 30}}
    kind = JPEG if file_format == "JPEG" else PNG
    got, placement = make_pipeline(document).make_input(body, kind, MANY)
    # The server scales before it turns: a resize rounds between columns and rows, so a level may differ.
    np.testing.assert_allclose(got, expect_input(decode(body), document), atol=1)
    assert placement.source == ((60, 90) if orientation > 4 else (90, 60))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\0\0\0\xff", b"Exif\0\0nonsense", b"Exif\0\0" + b"\xff" * 200]
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # the server's own filter, which pytest takes away
def test_a_picture_with_damaged_metadata_is_taken_as_it_is_stored(exif: bytes) -> None:
    body = encode(draw(20, 10), "JPEG", exif=exif)
    np.testing.assert_array_equal(
        make_input(body, JPEG, {}), expect_input(decode(encode(draw(20, 10), "JPEG")), {})
    )


def with_mode(mode: str) -> Image.Image:
    image = draw(24, 18)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return image
    return image.convert(mode)


@pytest.mark.parametrize("color", ["RGB", "GRAY"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_colors(mode: str, color: str) -> None:
    image = with_mode(mode)
    opaque = image.convert("L" if mode in ("1", "L", "LA") else "RGB")
    got = make_input(encode(image, "PNG"), PNG, {"color": color})
    np.testing.assert_array_equal(got, expect_input(opaque, {"color": color}))


@pytest.mark.parametrize("transparent", [b"\0\x80\xff", 3], ids=["table", "index"])
def test_a_transparent_palette_counts_by_its_colors(transparent: Any) -> None:
    image = with_mode("P")
    got = make_input(encode(image, "PNG", transparency=transparent), PNG, {})
    np.testing.assert_array_equal(got, expect_input(image.convert("RGB"), {}))


@pytest.mark.parametrize("color", ["RGB", "GRAY"])
def test_of_16_bits_the_upper_8_count(color: str) -> None:
    shades = (np.arange(24 * 18, dtype=np.uint16) * 151).reshape(18, 24)
    upper = Image.fromarray((shades >> 8).astype(np.uint8))
    gray = make_input(encode(Image.fromarray(shades), "PNG"), PNG, {"color": color})
    np.testing.assert_array_equal(gray, expect_input(upper, {"color": color}))
    rgb = make_input(png_16_bit_rgb(shades), PNG, {"color": color})
    np.testing.assert_array_equal(rgb, expect_input(upper, {"color": color}))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, color_type: int, rows: bytes) -> bytes:
    """Give a PNG file; Pillow writes no 16-bit colours, and no lies about the size."""
    head = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def png_16_bit_rgb(shades: Any) -> bytes:
    rows = [b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in shades]
    return png(shades.shape[1], shades.shape[0], 16, 2, b"".join(rows))


@pytest.mark.parametrize("color", ["RGB", "GRAY"])
def test_jpeg_colors(color: str) -> None:
    for image in (draw(24, 18).convert("L"), draw(24, 18).convert("CMYK"), draw(24, 18)):
        body = encode(image, "JPEG")
        opaque = decode(body).convert("L" if image.mode == "L" else "RGB")
        got = make_input(body, JPEG, {"color": color})
        np.testing.assert_array_equal(got, expect_input(opaque, {"color": color}))


@pytest.mark.parametrize("raw_format", list(RawFormat))
def test_raw_pixels(raw_format: RawFormat) -> None:
    image = draw(13, 7)
    pixels = np.asarray(image.convert("L") if raw_format == "GRAY8" else image)
    stored = pixels[:, :, ::-1] if raw_format == "BGR" else pixels
    kind = PictureType(Encoding.RAW, (13, 7), raw_format)
    want = expect_input(Image.fromarray(pixels), {})
    np.testing.assert_array_equal(make_input(stored.tobytes(), kind, {}), want)


# -- refused -------------------------------------------------------------------------------------------------


def refusal(body: bytes, kind: PictureType, document: dict[str, Any] | None = None, **model: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        make_pipeline(document or {}, **model).make_input(body, kind, 10_000)
    return caught.value


def test_files_that_are_not_what_they_should_be() -> None:
    body = encode(draw(20, 20), "PNG")
    error = refusal(body, JPEG)
    assert (error.status, error.message) == (400, "the body is no JPEG: it is a PNG: say so in Content-Type")
    error = refusal(b"", PNG)
    assert (error.status, error.message) == (400, "the body is no PNG: the body must be the file itself")
    assert refusal(b"\xff\xd8\xff" + b"x" * 50, JPEG).message.startswith("the JPEG cannot be read")


@pytest.mark.parametrize("body", [png(60_000, 60_000, 8, 2, b""), png(101, 100, 1, 0, b"")])
def test_too_many_pixels_are_refused_by_the_header_alone(body: bytes) -> None:
    error = refusal(body, PNG)
    assert error.status == 413
    assert "this server takes 10000" in error.message


def test_a_jpeg_that_claims_too_many_pixels() -> None:
    body = bytearray(encode(draw(16, 16), "JPEG"))
    place = body.index(b"\xff\xc0") + 5
    body[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    assert refusal(bytes(body), JPEG).status == 413
    assert refusal(b"", PictureType(Encoding.RAW, (10**9, 10**9))).status == 413


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
def test_a_truncated_jpeg_is_refused(options: dict[str, Any]) -> None:
    body = encode(draw(64, 64), "JPEG", **options)
    for end in range(3, len(body) - 2, 7):  # the last two bytes only mark the end
        assert refusal(body[:end], JPEG).status == 400, end


def test_a_truncated_png_is_refused() -> None:
    body = encode(draw(64, 64), "PNG")
    for end in range(8, len(body), 101):
        assert refusal(body[:end], PNG).status == 400, end


def test_a_png_whose_pixels_cannot_be_decompressed_is_refused() -> None:
    body = encode(draw(64, 64), "PNG")
    place = body.index(b"IDAT")
    size = struct.unpack(">I", body[place - 4 : place])[0]
    data = bytearray(body[place + 4 : place + 4 + size])
    data[size // 2 : size // 2 + 40] = b"\xff" * 40
    damaged = body[: place - 4] + chunk(b"IDAT", bytes(data)) + chunk(b"IEND", b"")
    assert refusal(damaged, PNG).status == 400


def test_the_orientation_of_a_png_may_stand_behind_its_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = encode(draw(9, 6), "PNG")
    late = body[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + chunk(b"IEND", b"")
    want = expect_input(draw(9, 6).transpose(Image.Transpose.ROTATE_270), {})
    np.testing.assert_array_equal(make_input(late, PNG, {}), want)


def test_a_png_with_a_wrong_checksum_is_refused() -> None:
    body = bytearray(encode(draw(64, 64), "PNG"))
    body[len(body) // 2] ^= 1
    assert refusal(bytes(body), PNG).status == 400


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    body = encode(draw(16, 16), "JPEG", progressive=True)
    assert "scans" in refusal(body[:-2] + body[body.index(b"\xff\xda") : -2] * 20 + body[-2:], JPEG).message


@pytest.mark.filterwarnings("ignore::UserWarning")  # as above
@given(st.data())
def test_damage_gives_an_input_or_a_sentence(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([JPEG, PNG]))
    body = bytearray(encode(draw(16, 16), kind.encoding))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    pipeline = make_pipeline({"resize": {"mode": "Stretch", "width": 8, "height": 8}})
    try:
        array, _ = pipeline.make_input(bytes(body), kind, 10_000)
        outcome: object = array.shape
    except ApiError as error:
        outcome = error.status
    assert outcome in ((1, 3, 8, 8), 400, 413)


def test_raw_pixels_must_be_as_many_as_they_say() -> None:
    error = refusal(b"x" * 299, PictureType(Encoding.RAW, (10, 10)))
    assert (error.status, error.message) == (400, "10x10 pixels of RGB take 300 bytes, the body has 299")


def test_a_picture_that_the_model_cannot_take() -> None:
    body = encode(draw(20, 10), "PNG")
    error = refusal(body, PNG, {}, shape=(1, 3, 10, 10))
    assert error.message.startswith(
        "the picture gives an input of shape [1, 3, 10, 20], the model takes [1, 3, 10, 10]"
    )
    error = refusal(body, PNG, {"crop": {"width": 10, "height": 11}})
    assert error.message == "a picture of 20x10 pixels is too small for the crop of 10x11 pixels"


def test_a_picture_like_a_thread_is_refused() -> None:
    body = encode(Image.new("L", (10_000, 1)), "PNG")
    error = refusal(body, PNG, {"resize": {"mode": "ShorterSide", "size": 224}})
    assert error.status == 400
    assert "less extreme" in error.message
    got = make_input(body, PNG, {"resize": {"mode": "Letterbox", "width": 64, "height": 64}})
    assert got.shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"image/jpeg", PictureType(Encoding.JPEG)),
        (b"Image/JPG; charset=binary", PictureType(Encoding.JPEG)),
        (b"image/png", PictureType(Encoding.PNG)),
        (b"image/x-raw; width=640; height=480", PictureType(Encoding.RAW, (640, 480))),
        (b'image/x-raw;format="BGR";height=1;width=2', PictureType(Encoding.RAW, (2, 1), RawFormat.BGR)),
    ],
)
def test_content_types(text: bytes, want: PictureType) -> None:
    assert parse_picture_type(text) == want


@pytest.mark.parametrize(
    ("text", "status", "sentence"),
    [
        (b"image/webp", 415, "a body of 'image/webp' is not supported: send image/jpeg, image/png,"),
        (b"image/", 415, "send image/jpeg"),
        (b"image/x-raw", 400, "needs width, in pixels"),
        (b"image/x-raw; width=0; height=1", 400, "needs width"),
        (b"image/x-raw; width=1; height=9999999999", 400, "needs height"),
        (b"image/x-raw; width=1; width=1; height=1", 400, "not 'width=1'"),
        (b"image/x-raw; width=1; height=1; stride=4", 400, "takes width, height and format, not 'stride=4'"),
        (b"image/x-raw; width=1; height=1; format=NV12", 400, "one of RGB, BGR, GRAY8"),
        (b"image/x-raw; width=1; height", 400, "not 'height'"),
    ],
)
def test_content_types_that_are_refused(text: bytes, status: int, sentence: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_picture_type(text)
    assert caught.value.status == status
    assert sentence in caught.value.message
