"""From files and options to the images to build: which variants, on which runtime images. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.cli.documents import Documents
from edgemodel_operator.core.chain import known_classes, needed_variants
from edgemodel_operator.core.supply import SupplyJob, supply_jobs
from edgemodel_operator.core.world import Model
from edgemodel_operator.settings import Settings


class NotPossible(Exception):  # noqa: N818 - reads as the fact it states
    """What is asked for cannot be built; the message says what to write instead."""


@dataclass(frozen=True)
class Wishes:
    """What the options of the command line say."""

    runtimes: Mapping[str, str]
    """Variant → image, by tag or digest; they count before those of the configuration."""
    variants: Sequence[str] = ()
    """Only these; none named: every one that the targets need."""


def plan_jobs(documents: Documents, settings: Settings, wishes: Wishes) -> tuple[SupplyJob, ...]:
    """Give one job for each image; its `runtime` need not be a digest yet. Raises NotPossible."""
    name, spec = documents.only_model()
    shipped = {item.name: item.spec for item in settings.accelerator_classes}
    classes = {**shipped, **documents.classes}
    _check_targets(spec, classes)
    variants = _chosen(needed_variants(spec, classes), wishes.variants)
    runtimes = {**settings.runtimes, **wishes.runtimes}
    missing = [variant for variant in variants if variant not in runtimes]
    if missing:
        first = missing[0]
        raise NotPossible(
            f"no runtime image is known for {', '.join(missing)}: add `--runtime {first}=IMAGE`, or name a "
            "file with `runtimes` by `--config`"
        )
    model = Model(namespace="", name=name, uid="", generation=0, spec=spec)
    return supply_jobs(model, runtimes, variants)


def _check_targets(spec: EdgeModelSpec, classes: Mapping[str, AcceleratorClassSpec]) -> None:
    known = known_classes(classes)
    for rung in spec.targets:
        if rung.accelerator not in known:
            raise NotPossible(
                f"AcceleratorClass {rung.accelerator} is not known: give its file with `--class-file`, or "
                f"name one of these in targets: {', '.join(sorted(known))}"
            )
        if known[rung.accelerator].runtime_for(spec.model.format) is None:
            raise NotPossible(
                f"AcceleratorClass {rung.accelerator} has no runtime for {spec.model.format} models: add "
                "one to its `runtimes`"
            )


def _chosen(needed: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    unknown = sorted(set(wanted) - set(needed))
    if unknown:
        raise NotPossible(f"the targets do not need the variant {unknown[0]}; they need: {', '.join(needed)}")
    return tuple(variant for variant in needed if not wanted or variant in wanted)


def with_runtime(job: SupplyJob, runtime: str) -> SupplyJob:
    """Give the job on this runtime image."""
    return replace(job, runtime=runtime)
