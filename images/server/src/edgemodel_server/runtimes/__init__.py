"""The runtimes behind one small interface: ``load_model(format, path, options) -> Model``.

Adding a runtime is one module with a function ``load(path, options) -> Model`` and one entry in ``formats``;
``docs/runtimes.md`` has the rules. A module imports its library at the top, so that only the runtime of the
model at hand is ever loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import Reason, StartError
from edgemodel_server.formats import FORMAT_RUNTIMES, RUNTIMES
from edgemodel_server.inference import Signature


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model.

    ``runtime`` is a name of ``formats.RUNTIMES`` (None: the first one installed for the format).
    ``provider`` is the execution provider that must compute the model (None: the runtime's own choice for the
    CPU), with ``provider_options`` as the provider defines them; ``cpu_fallback`` accepts that the CPU takes
    those operations that the provider lacks. ``delegate`` is the library of a LiteRT delegate. ``threads`` is
    the number of threads inside one computation: 1 by default, for several requests at once scale better.
    """

    runtime: str | None = None
    provider: str | None = None
    provider_options: Mapping[str, str] = field(default_factory=dict)
    cpu_fallback: bool = False
    delegate: Path | None = None
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

    def close(self) -> None:
        """Give back what the runtime holds; no computation may be under way, and none can follow."""


@runtime_checkable
class Shrinking(Protocol):
    """A model that keeps the memory of its largest computation until it is told not to."""

    def shrink(self, inputs: Mapping[str, Tensor]) -> None:
        """Give back what a computation of ``inputs`` does not need; they hold no text."""


def load_model(model_format: str, path: Path, options: LoadOptions) -> Model:
    """Load the model file at ``path``.

    Raises StartError with reason LoadFailed or ProviderMismatch.
    """
    model: Model = import_runtime(model_format, options.runtime).load(path, options)
    return model


def import_runtime(model_format: str, wanted: str | None) -> ModuleType:
    """Return the module that loads a format, with its library; raises StartError(LoadFailed)."""
    name = choose_runtime(model_format, wanted)
    try:
        return import_module(f"{__name__}.{RUNTIMES[name].module}")
    except (ImportError, OSError) as error:  # the library is broken, or lacks another one
        raise StartError(Reason.LOAD_FAILED, f"the runtime {name} cannot be used here: {error}") from error


def choose_runtime(model_format: str, wanted: str | None) -> str:
    """Return the name of the runtime for a format; raises StartError(LoadFailed) where there is none."""
    able = FORMAT_RUNTIMES[model_format]
    if wanted is not None and wanted not in able:
        sentence = f"{wanted} cannot load {model_format} models, only {' and '.join(able)} can"
        raise StartError(Reason.LOAD_FAILED, sentence)
    candidates = able if wanted is None else (wanted,)
    for name in candidates:
        if find_spec(RUNTIMES[name].library) is not None:
            return name
    needed = " or ".join(RUNTIMES[name].install for name in candidates)
    sentence = f"no {' or '.join(candidates)} for {model_format} models is installed here: install {needed}"
    raise StartError(Reason.LOAD_FAILED, sentence)
