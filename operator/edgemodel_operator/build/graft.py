"""The image of a model: its layer on top of the runtime image of every platform, and the index over them.

Pure but for the layer file: which bytes an image has is decided here, where they go is `publish`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.layout import ModelFacts, make_annotations, model_entries
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.build.sources.download import FetchedFile
from edgemodel_operator.oci.descriptor import OCI_INDEX, Descriptor, Platform
from edgemodel_operator.oci.image import Image, InvalidImage, graft, make_index
from edgemodel_operator.oci.layer import Layer, write_layer


@dataclass(frozen=True)
class GraftedChild:
    """The image of one platform, and the layers of the runtime that it stands on."""

    platform: Platform
    image: Image
    runtime_layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class GraftedImage:
    """Everything to push: the layer that all platforms share, the children, the index."""

    layer: Layer
    children: tuple[GraftedChild, ...]
    index: bytes

    @property
    def descriptor(self) -> Descriptor:
        """Describe the index."""
        return Descriptor.of(OCI_INDEX, self.index)


def write_model_layer(facts: ModelFacts, files: Sequence[FetchedFile], destination: Path) -> Layer:
    """Write the model layer to a file and describe it; the model's files in the facts' order. Blocking."""
    with destination.open("wb") as out:
        return write_layer(model_entries(facts, [file.path for file in files]), out)


def graft_image(
    facts: ModelFacts, runtime_digest: str, runtime: Sequence[RuntimeChild], layer: Layer
) -> GraftedImage:
    """Give the image of a model; the same arguments give the same bytes.

    Raises BuildError(RuntimeImageInvalid) when a runtime image is inconsistent.
    """
    children = tuple(_graft_child(facts, child, layer) for child in runtime)
    index = make_index(
        [child.image.descriptor for child in children], make_annotations(facts, runtime_digest)
    )
    return GraftedImage(layer, children, index)


def _graft_child(facts: ModelFacts, child: RuntimeChild, layer: Layer) -> GraftedChild:
    labels = make_annotations(facts, child.digest)
    try:
        image = graft(child.manifest, child.config, [layer], labels=labels, annotations=labels)
    except InvalidImage as error:
        raise fail(
            Reason.RUNTIME_IMAGE_INVALID, f"The runtime image for {child.platform} cannot be used: {error}"
        ) from error
    return GraftedChild(child.platform, image, child.layers)
