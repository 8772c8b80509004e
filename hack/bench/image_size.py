"""How much Python an image of the server carries: the layers above the interpreter's."""

from __future__ import annotations

from bench.machine import BenchError
from edgemodel_operator.oci.descriptor import Platform
from imagebuild.__main__ import build, parse_options
from imagebuild.bytecode import WrongPython
from imagebuild.debian import DebianUnavailable
from imagebuild.locked import WheelsUnavailable

_BASE, _IMAGE = "base", "onnxruntime-cpu"
_PLATFORM = Platform("linux", "amd64")
_MB = 1e6


def measure_image_size() -> dict[str, float]:
    """Build the ONNX image (from the cache, if it was built before) and add up its layers."""
    try:
        images = build(parse_options(["--only", f"{_BASE},{_IMAGE}"]))
    except (DebianUnavailable, WheelsUnavailable, WrongPython) as error:
        raise BenchError(f"the image cannot be built here: {error}") from error
    layers = {image.recipe.name: image.layers[_PLATFORM] for image in images}
    payload = layers[_IMAGE][len(layers[_BASE]) :]
    return {
        "image.unpacked_mb": sum(stored.unpacked_bytes for stored in payload) / _MB,
        "image.compressed_mb": sum(stored.layer.descriptor.size for stored in payload) / _MB,
    }
