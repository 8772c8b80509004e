"""Our contender: the worker that the operator starts for each build, and nothing else."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.machine import BenchError
from buildbench.meter import Cost, meter
from edgemodel_operator.api.image import ImageSpec
from edgemodel_operator.api.model import ModelFormat, ModelSpec
from edgemodel_operator.api.source import HttpSource, Source
from edgemodel_operator.build.protocol import decode_message, encode_request
from edgemodel_operator.build.request import BuildResult
from edgemodel_operator.build.supplier import WorkerBuilder
from edgemodel_operator.core.supply import BuildAccess, SupplyJob
from edgemodel_operator.settings import SourceSettings

_LOOPBACK = ("127.0.0.0/8",)


@dataclass(frozen=True)
class Ours:
    """Builds models that a file server on this machine offers, onto a runtime image in the registry."""

    registry: str
    runtime: str
    """By digest."""
    files: str
    """The URL of the folder with the models."""

    @property
    def builder(self) -> WorkerBuilder:
        """The builder as the operator configures it."""
        plain_http = (self.registry, self.runtime.partition("/")[0])
        return WorkerBuilder(SourceSettings(allowed_networks=_LOOPBACK), plain_http)

    def job(self, model: Path, name: str, repository: str) -> SupplyJob:
        """Give what the operator would make of an EdgeModel with this model."""
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        source = HttpSource(url=f"{self.files}/{model.name}", sha256=digest, insecure=True)
        return SupplyJob(
            namespace="bench",
            model_name=name,
            uid=name,
            model=ModelSpec(format=ModelFormat.ONNX, source=Source(http=source), version="1"),
            image=ImageSpec(repository=f"{self.registry}/{repository}"),
            variant="onnxruntime-cpu",
            runtime=self.runtime,
            digests=(digest,),
        )

    def build(self, model: Path, name: str, repository: str) -> tuple[Cost, BuildResult]:
        """Build, in a process of its own as the operator does; raises BenchError."""
        request = encode_request(self.builder.request(self.job(model, name, repository), BuildAccess()))
        with TemporaryDirectory(prefix="buildbench-") as work:
            argv = [sys.executable, "-m", "edgemodel_operator.build", "--work", work]
            cost, said = meter(argv, stdin=request, env={"TMPDIR": work})
        final = decode_message(said.splitlines()[-1].encode())
        if not isinstance(final, BuildResult):
            raise BenchError(f"our build failed: {json.dumps(final.to_raw())}")
        return cost, final
