"""The image of a model: its layers on top of the runtime image of every platform, and the index over them.

Pure: which bytes an image has is decided here, where they go is `publish`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.layers import WrittenLayer
from edgemodel_operator.build.layout import ModelFacts, index_annotations, make_annotations
from edgemodel_operator.build.operators import LABEL as OPERATORS_LABEL
from edgemodel_operator.build.origin.packages import PACKAGES_LABEL
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.descriptor import OCI_INDEX, Descriptor, Platform
from edgemodel_operator.oci.image import Image, InvalidImage, graft, make_index

FACTS = (PACKAGES_LABEL, OPERATORS_LABEL)
"""What a runtime says of itself for builds: no node needs it, and containerd warns of labels of that length
whenever a container starts."""


@dataclass(frozen=True)
class GraftedChild:
    """The image of one platform, and the runtime that it stands on."""

    platform: Platform
    image: Image
    runtime_layers: tuple[Descriptor, ...]
    runtime_blobs: Mapping[str, Path]
    """The layers of the runtime that no registry has yet, by digest."""


@dataclass(frozen=True)
class GraftedImage:
    """Everything to push: the layers that all platforms share, the children, the index."""

    layers: tuple[WrittenLayer, ...]
    children: tuple[GraftedChild, ...]
    index: bytes

    @property
    def descriptor(self) -> Descriptor:
        """Describe the index."""
        return Descriptor.of(OCI_INDEX, self.index)


@dataclass(frozen=True)
class Runtime:
    """The runtime image: its digest, which stands for all of it, and its children."""

    digest: str
    children: Sequence[RuntimeChild]


def graft_image(
    facts: ModelFacts, report: ModelReport, runtime: Runtime, layers: Sequence[WrittenLayer]
) -> GraftedImage:
    """Give the image of a model; the same arguments give the same bytes.

    Raises BuildError(RuntimeImageInvalid) when a runtime image is inconsistent, or has too many layers.
    """
    children = tuple(_graft_child(facts, child, layers) for child in runtime.children)
    index = make_index(
        [child.image.descriptor for child in children], index_annotations(facts, runtime.digest, report)
    )
    return GraftedImage(tuple(layers), children, index)


def _graft_child(facts: ModelFacts, child: RuntimeChild, layers: Sequence[WrittenLayer]) -> GraftedChild:
    labels = make_annotations(facts, child.digest)
    on_top = [written.layer for written in layers]
    try:
        image = graft(
            child.manifest,
            child.config,
            on_top,
            labels=labels,
            without_labels=FACTS,
            annotations=labels,
        )
    except InvalidImage as error:
        raise fail(
            Reason.RUNTIME_IMAGE_INVALID, f"The runtime image for {child.platform} cannot be used: {error}"
        ) from error
    return GraftedChild(child.platform, image, child.layers, child.blobs)
