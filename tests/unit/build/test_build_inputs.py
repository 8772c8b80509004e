"""What of a request decides the build key, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.api.image import Builder, Compression, Dockerfile, ImageSpec, PlatformName, Sharding
from edgemodel_operator.api.model import Conversion, ModelFormat, ModelSpec, Origin, TensorSpec
from edgemodel_operator.api.source import Archive, HttpSource, Source
from edgemodel_operator.build.request import BuildRequest

RUNTIME = "registry.plant-a.local/runtimes/cpu@sha256:" + "b" * 64
URL = "https://models.plant-a.local/model"


def make(
    *,
    source: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    image: dict[str, Any] | None = None,
    **request: Any,
) -> BuildRequest:
    given = Source(**{"http": HttpSource(url=URL, sha256="a" * 64), **(source or {})})
    fields = {"format": ModelFormat.ONNX, "source": given, "version": "7", **(model or {})}
    spec = ImageSpec(**{"repository": "registry.plant-a.local/models/line", **(image or {})})
    named = {"model_name": "line-orientation", "runtime": RUNTIME, **request}
    return BuildRequest(**{"model": ModelSpec(**fields), "image": spec, **named})


def dockerfile(digest: str = "c" * 64, folder: str = "", **changes: Any) -> dict[str, Any]:
    context = Source(http=HttpSource(url=URL, sha256=digest), archive=Archive(path=folder))
    return {"builder": Builder.DOCKER, "dockerfile": Dockerfile(context=context, **changes)}


def converted(shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    tensor = TensorSpec(datatype="FP32", shape=shape)
    return {"convert": Conversion(origin=Origin.TORCHSCRIPT, inputs=(tensor,))}


DIFFERENT = {
    "plain": make(),
    "name": make(model_name="other"),
    "version": make(model={"version": "8"}),
    "format": make(model={"format": ModelFormat.TFLITE}),
    "digest": make(source={"http": HttpSource(url=URL, sha256="d" * 64)}),
    "archive": make(source={"archive": Archive()}),
    "path in the archive": make(source={"archive": Archive(path="a/model.onnx")}),
    "other path in the archive": make(source={"archive": Archive(path="b/model.onnx")}),
    "runtime": make(runtime=RUNTIME.replace("b" * 64, "e" * 64)),
    "platforms": make(image={"platforms": (PlatformName.LINUX_ARM64,)}),
    "sharding": make(image={"sharding": Sharding.DISABLED}),
    "compression": make(image={"compression": Compression.GZIP}),
    "conversion": make(model=converted()),
    "what is converted": make(model=converted((2,))),
    "Dockerfile": make(image=dockerfile()),
    "builder": make(image=dockerfile() | {"builder": Builder.BUILDAH}),
    "context": make(image=dockerfile("f" * 64)),
    "folder of the context": make(image=dockerfile(folder="docker")),
    "path of the Dockerfile": make(image=dockerfile(path="Dockerfile.gpu")),
    "arguments": make(image=dockerfile(args={"A": "1"})),
    "other arguments": make(image=dockerfile(args={"A": "2"})),
    "unpinned": make(source={"http": HttpSource(url=URL)}),
    "another unpinned": make(source={"http": HttpSource(url=f"{URL}-2")}),
}


def test_everything_that_decides_the_bytes_decides_the_key() -> None:
    keys = {name: request.build_key for name, request in DIFFERENT.items()}
    assert len(set(keys.values())) == len(keys), keys


@pytest.mark.parametrize(
    "request_",
    [
        make(source={"http": HttpSource(url="https://elsewhere.plant-b.local/x", sha256="a" * 64)}),
        make(image={"repository": "registry.plant-b.local/models/other"}),
        make(target="oci:/tmp/images"),
        make(digests=("a" * 64,)),
        make(source={"http": HttpSource(url=URL)}, digests=("a" * 64,)),
        make(plain_http=("registry.plant-a.local",)),
        make(image={"keep_images": 7}),
        make(runtime=RUNTIME.replace("plant-a", "plant-b")),
    ],
)
def test_where_things_lie_and_go_does_not(request_: BuildRequest) -> None:
    assert request_.build_key == make().build_key
