"""What tests of origin need: runtime images that say what they hold, and all that is known of a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport, ModelTensor, OperatorSet
from edgemodel_operator.build.origin.attach import Origin
from edgemodel_operator.build.origin.packages import PACKAGES_LABEL, Package, packages_label
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from edgemodel_operator.oci.image import Image, RuntimeSettings, make_image, make_index
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference
from support.build import make_request
from support.images import AMD64, ARM64, make_layer

PACKAGES = (
    Package("pkg:deb/debian/zlib1g@1:1.2.13?arch=amd64", "1" * 64, "Zlib"),
    Package("pkg:deb/debian/tzdata@2026a-0%2Bdeb12u1?arch=all", "2" * 64, "LicenseRef-Debian-public-domain"),
    Package("pkg:pypi/numpy@2.4.6", "3" * 64, "BSD-3-Clause AND 0BSD"),
    Package("pkg:pypi/pysimdjson@7.0.2", "4" * 64),
    Package("pkg:generic/edgemodel-server@0.1.0", license="Apache-2.0"),
)
REPORT = ModelReport(
    inputs=(ModelTensor(name="x", datatype="FP32", shape=("N", "16")),),
    outputs=(ModelTensor(name="y", datatype="FP32", shape=("N", "16")),),
    operator_sets=(OperatorSet(domain="ai.onnx", version=17),),
    operators=("MatMul",),
    parameters=256,
    size_bytes=1100,
)
SOURCE = ModelFile(name="model.onnx", sha256="a" * 64, size=1100)
SECRET_URL = "https://models.plant-a.local/line/model.onnx?token=hunter2#part"


def make_runtime_image(
    platform: Platform, packages: Sequence[Package] | None = PACKAGES
) -> tuple[Image, bytes]:
    """Make a runtime image and its only blob; `packages` None: it does not say what it holds."""
    layer, blob = make_layer("opt/server", str(platform).encode())
    labels = {} if packages is None else {PACKAGES_LABEL: packages_label(packages)}
    settings = RuntimeSettings(entrypoint=["/opt/server"], user="65532", labels=labels)
    return make_image(platform, [layer], settings), blob


def make_runtime(packages: Sequence[Package] | None = PACKAGES) -> tuple[RuntimeChild, ...]:
    """Make the runtime image of two platforms as a build reads it."""
    images = [(platform, make_runtime_image(platform, packages)[0]) for platform in (AMD64, ARM64)]
    return tuple(
        RuntimeChild(platform, image.descriptor.digest, image.manifest, image.config)
        for platform, image in images
    )


async def push_runtime(client: ImageStore, ref: Reference) -> Descriptor:
    """Push a runtime image of two platforms that says what it holds."""
    children = []
    for platform in (AMD64, ARM64):
        image, blob = make_runtime_image(platform)
        layer, _ = make_layer("opt/server", str(platform).encode())
        await client.put_blob(ref, blob, layer.descriptor)
        await client.put_blob(ref, image.config, image.config_descriptor)
        await client.put_manifest(ref.with_digest(image.descriptor.digest), image.manifest, OCI_MANIFEST)
        children.append(image.descriptor)
    return (await client.put_manifest(ref, make_index(children), OCI_INDEX)).descriptor


def make_origin_request(**changes: Any) -> BuildRequest:
    """Make a request whose source gives itself away by its query."""
    runtime = f"registry.plant-a.local/runtime-onnxruntime-cpu@sha256:{'e' * 64}"
    request = make_request(SECRET_URL, b"", runtime=runtime, repository="registry.plant-a.local/models/line")
    source = request.model.source.pinned_to([SOURCE.sha256])
    model = request.model.model_copy(update={"source": source})
    return request.model_copy(update={"model": model, **changes})


def make_origin(packages: Sequence[Package] | None = PACKAGES, **changes: Any) -> Origin:
    """Make all that is known of a build of one file."""
    request = make_origin_request()
    built = Origin(
        request=request,
        build_key=request.build_key,
        runtime=make_runtime(packages),
        fetched=(SOURCE,),
        files=(SOURCE,),
        report=REPORT,
        version="0.1.0",
    )
    return replace(built, **changes)


def children_of(count: int = 2) -> list[Descriptor]:
    """Make descriptors of platform images."""
    return [
        Descriptor(OCI_MANIFEST, f"sha256:{letter * 64}", 700, platform)
        for letter, platform in list(zip("cd", (AMD64, ARM64), strict=True))[:count]
    ]


INDEX = Descriptor(OCI_INDEX, f"sha256:{'b' * 64}", 900)
