"""The runtimes behind one small interface: ``load_model(format, path, options) -> Model``.

Adding a runtime is one module with a function ``load(path, options) -> Model`` and one line in ``_MODULES``.
A module imports its library at the top, so that only the runtime of the model at hand is ever loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import Reason, StartError
from edgemodel_server.inference import Signature


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model.

    ``provider`` is the execution provider to ask for (None: the runtime's CPU one); ``threads`` is the number
    of threads inside one computation: 1 by default, because several requests at once scale better.
    """

    provider: str | None = None
    threads: int = 1


class Model(Protocol):
    """A loaded model. ``run`` may be called from several threads at once."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs, in the model's order."""

    @property
    def platform(self) -> str:
        """The platform name of the model metadata answer, as ``onnxruntime_onnx``."""

    @property
    def provider(self) -> str:
        """The execution provider that is really in use, as the runtime names it."""

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Compute the named outputs.

        Raises ApiError(400) when the inputs are at fault, anything else when the computation fails.
        """


_MODULES: Mapping[str, tuple[str, str]] = {"ONNX": ("edgemodel_server.runtimes.onnx", "onnxruntime")}
"""Model format -> (module, the distribution that it needs)."""


def load_model(model_format: str, path: Path, options: LoadOptions) -> Model:
    """Load the model file at ``path`` with the runtime of its format.

    Raises StartError with reason LoadFailed or ProviderMismatch.
    """
    if model_format not in _MODULES:
        known = ", ".join(_MODULES)
        raise StartError(
            Reason.LOAD_FAILED, f"{path}: no runtime for the format {model_format}, only for {known}"
        )
    module_name, distribution = _MODULES[model_format]
    try:
        module = import_module(module_name)
    except ImportError as error:
        sentence = f"the runtime of {model_format} models is not usable here, install {distribution}: {error}"
        raise StartError(Reason.LOAD_FAILED, sentence) from error
    model: Model = module.load(path, options)
    return model
