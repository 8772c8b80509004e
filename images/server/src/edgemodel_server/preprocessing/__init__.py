"""Pictures as requests: what a manifest may declare, reading them, and the labels of the answer.

``schema`` and ``fields`` are plain Python, for the manifest is also read where no numpy is loaded. Everything
that needs Pillow is imported only when a model that takes pictures starts.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgemodel_server.inference import Signature
    from edgemodel_server.manifest import Source
    from edgemodel_server.preprocessing.pipeline import Pipeline


def load_pipeline(source: "Source", signature: "Signature") -> "Pipeline | None":
    """Return the pipeline of a model whose files are verified; None where its manifest declares none.

    Raises StartError(LoadFailed) where declaration and model do not go together.
    """
    if source.preprocessing is None:
        return None
    module = import_module("edgemodel_server.preprocessing.pipeline")
    pipeline: Pipeline = module.build_pipeline(source.preprocessing, signature, source.folder)
    return pipeline
