"""What happens before a model is ready, in this order: verify, load, provider, warm up, golden sample.

Blocking code without a loop: the server runs it in a thread of its own, ``--check`` calls it directly.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import Reason, StartError
from edgemodel_server.golden import Golden, compare_golden, read_golden
from edgemodel_server.log import log_warning
from edgemodel_server.manifest import Source, verify_files
from edgemodel_server.preprocessing import load_pipeline
from edgemodel_server.resident import read_resident_bytes
from edgemodel_server.runtimes import LoadOptions, Model, Shrinking, import_runtime, load_model
from edgemodel_server.tuning import Tuning, tune

if TYPE_CHECKING:
    from edgemodel_server.preprocessing.pipeline import Pipeline

_WARM_UP_SECONDS = 0.3
_WARM_UP_RUNS = 20
_CLEAR_SECONDS = 0.005
"""A model this slow is computed by a thread whatever a third run would say."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What a model must pass: its golden sample, if any, and how it must be loaded.

    ``max_rows`` is how many rows of several requests may share a computation, where that pays.
    """

    golden: Path | None = None
    tolerance: float = 1e-2
    load: LoadOptions = field(default_factory=LoadOptions)
    max_rows: int = 1


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that passed every check.

    ``memory_bytes`` is what the process grew by meanwhile, ``stages`` are the seconds that each stage took;
    ``pictures`` is None for a model that takes tensors only.
    """

    model: Model
    sha256: str
    tuning: Tuning
    stages: Mapping[str, float]
    memory_bytes: int
    pictures: "Pipeline | None" = None

    def facts(self) -> dict[str, object]:
        """Return what a log line says about the model."""
        seconds = {stage: round(taken, 6) for stage, taken in self.stages.items()}
        return {
            "sha256": self.sha256,
            "provider": self.model.provider,
            "run_seconds": self.tuning.seconds,
            "max_batch": self.tuning.max_rows,
            "memory_bytes": self.memory_bytes,
            "stages": seconds,
        }


@dataclass(frozen=True, slots=True)
class _WarmUp:
    tuning: Tuning
    outputs: Mapping[str, Tensor]


def prepare(source: Source, checks: Checks) -> Prepared:
    """Take a model through all of its checks; raises StartError with the reason of the first that fails."""
    marks = [time.monotonic()]
    # 1. the files are the ones that the manifest names
    sha256 = verify_files(source)
    marks.append(time.monotonic())
    # 2. the runtime takes them, on the provider that is required
    import_runtime(source.format, checks.load.runtime)  # what the library takes is not the model's
    resident = read_resident_bytes()
    model = load_model(source.format, source.path, checks.load)
    if checks.load.provider not in (None, model.provider):
        sentence = f"{checks.load.provider} is required, but the model runs on {model.provider}"
        raise StartError(Reason.PROVIDER_MISMATCH, sentence)
    pictures = load_pipeline(source, model.signature)
    marks.append(time.monotonic())
    # 3. it computes: the first run is slow, and no client should wait for it
    golden = None if checks.golden is None else read_golden(checks.golden, model.signature)
    warm_up = _warm_up(model, golden, checks.max_rows)
    marks.append(time.monotonic())
    # 4. what it computes is right
    if golden is not None:
        compare_golden(golden, warm_up.outputs, checks.tolerance)
    marks.append(time.monotonic())
    names = ("verify", "load", "warm_up", "golden")
    stages = {name: marks[index + 1] - marks[index] for index, name in enumerate(names)}
    memory_bytes = max(0, read_resident_bytes() - resident)
    return Prepared(model, sha256, warm_up.tuning, stages, memory_bytes, pictures)


def _warm_up(model: Model, golden: Golden | None, max_rows: int) -> _WarmUp:
    """Run until times settle or the budget is spent, and once at least; on real inputs if there are any."""
    inputs = (
        golden.inputs
        if golden
        else {name: _make_input(spec) for name, spec in model.signature.inputs.items()}
    )
    names = list(model.signature.outputs)
    fastest = float("inf")
    outputs: list[Tensor] = []
    end = time.monotonic() + _WARM_UP_SECONDS
    for runs in range(1, _WARM_UP_RUNS + 1):
        started = time.monotonic()
        try:
            outputs = model.run(inputs, names)
        except Exception as error:
            return _forgive(model, golden, inputs, error)
        finished = time.monotonic()
        fastest = min(fastest, finished - started)
        if finished >= end or (runs > 1 and fastest > _CLEAR_SECONDS):
            break
    tuning = tune(model, inputs, fastest, max_rows)
    if isinstance(model, Shrinking) and max(tuning.batch_seconds, default=1) > tuning.max_rows:
        model.shrink(inputs)  # batches were tried that will never be made
    return _WarmUp(tuning, dict(zip(names, outputs, strict=True)))


def _forgive(model: Model, golden: Golden | None, inputs: Mapping[str, Tensor], error: Exception) -> _WarmUp:
    """Let a model be that refuses made-up inputs: with free dimensions or text they may be impossible."""
    specs = model.signature.inputs.values()
    made_up = golden is None and any(spec.datatype == BYTES or -1 in spec.shape for spec in specs)
    if not made_up:
        raise StartError(Reason.WARM_UP_FAILED, f"the first computation fails: {error}") from error
    log_warning(
        "warm-up skipped", error=str(error), advice="give a golden sample: it is used as warm-up input"
    )
    return _WarmUp(Tuning(None, sum(array.nbytes for array in inputs.values())), {})


def _make_input(spec: TensorSpec) -> Tensor:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    if spec.datatype == BYTES:
        return np.full(shape, b"", dtype=np.object_)
    return np.zeros(shape, dtype=NUMPY_DTYPE[spec.datatype])
