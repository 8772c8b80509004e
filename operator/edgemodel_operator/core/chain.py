"""The chain from a spec to a trusted revision: which link holds, and what the first broken one says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.conditions import ConditionStatus, ConditionType, Finding
from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.edgemodel_status import Revision
from edgemodel_operator.core.pins import is_pinned, known_digests
from edgemodel_operator.core.placement import CPU, CPU_CLASS
from edgemodel_operator.core.revision import make_revision
from edgemodel_operator.core.world import Supply, SupplyStage, SupplyStep, Trust, Verdict, World

LINKS = (
    ConditionType.SOURCE_RESOLVED,
    ConditionType.BUILT,
    ConditionType.SIGNED,
    ConditionType.TRUSTED,
)
LINK_OF_STEP = {
    SupplyStep.PREPARE: ConditionType.BUILT,
    SupplyStep.SOURCE: ConditionType.SOURCE_RESOLVED,
    SupplyStep.BUILD: ConditionType.BUILT,
    SupplyStep.SIGN: ConditionType.SIGNED,
}
PERSON_RECHECK = timedelta(seconds=30)
"""How soon to look again when a person must act on something that we do not watch."""


@dataclass(frozen=True)
class Hold:
    """Why there is no revision to roll out now."""

    link: ConditionType
    reason: str
    message: str
    stalled: bool
    """Whether a person must act."""
    retry_at: datetime | None = None
    source_unseen: bool = False
    """Whether the build failed before it came to the source."""


@dataclass(frozen=True)
class Chain:
    """How far a spec has come."""

    findings: tuple[Finding, ...]
    revision: Revision | None
    hold: Hold | None
    to_supply: tuple[str, ...] = ()
    """The runtime variants whose images must be made now."""


def known_classes(classes: Mapping[str, AcceleratorClassSpec]) -> dict[str, AcceleratorClassSpec]:
    """Give all classes; `cpu` always exists."""
    return {CPU: CPU_CLASS, **classes}


def needed_variants(spec: EdgeModelSpec, classes: Mapping[str, AcceleratorClassSpec]) -> tuple[str, ...]:
    """Name the runtime variants that the ladder needs for the model's format, sorted.

    A class that does not exist, or cannot run the format, needs none.
    """
    known = known_classes(classes)
    named = (known[rung.accelerator] for rung in spec.targets if rung.accelerator in known)
    runtimes = (item.runtime_for(spec.model.format) for item in named)
    return tuple(sorted({runtime.variant for runtime in runtimes if runtime is not None}))


def assess(world: World) -> Chain:
    """Walk the chain and stop at the first link that does not hold."""
    hold = _missing_input(world) or _supply_hold(world) or _trust_hold(world)
    if hold is None:
        spec = world.model.spec
        classes = known_classes(world.classes)
        images = {variant: supply.image for variant, supply in world.supplies.items()}
        platforms = {variant: supply.platforms for variant, supply in world.supplies.items()}
        revision = make_revision(
            world.model.name, spec, classes, images, world.golden.text, platforms=platforms
        )
        return Chain(_findings(None), revision, None)
    to_supply: tuple[str, ...] = ()
    if _missing_input(world) is None:
        to_supply = _to_supply(world)
    return Chain(_findings(hold), None, hold, to_supply)


def _to_supply(world: World) -> tuple[str, ...]:
    """Give the variants to make now; before the source is pinned only one, or two could see two models."""
    due = tuple(variant for variant, supply in world.supplies.items() if _is_due(supply, world))
    model = world.model
    if is_pinned(known_digests(model.spec.model, model.status.model)):
        return due
    others = [supply for variant, supply in world.supplies.items() if variant not in due]
    return () if any(supply.stage is not SupplyStage.FAILED for supply in others) else due[:1]


def _is_due(supply: Supply, world: World) -> bool:
    if supply.stage is SupplyStage.SIGNED and not _is_refused(supply.image, world):
        return False
    if supply.stage in (SupplyStage.FAILED, SupplyStage.SIGNED):
        return supply.retry_at is not None and world.now >= supply.retry_at
    return supply.stage is SupplyStage.MISSING


def _is_refused(image: str, world: World) -> bool:
    """Say whether a signed image is certainly not trusted: the registry may have lost it, or its signatures.

    To make it again finds what is there, and makes what is not.
    """
    verdict = world.verdicts.get(image)
    return verdict is not None and verdict.trust is Trust.UNTRUSTED


def _missing_input(world: World) -> Hold | None:
    spec = world.model.spec
    if world.name_is_taken:
        return Hold(
            ConditionType.SOURCE_RESOLVED,
            "ServiceNameTaken",
            f"a Service {world.model.namespace}/{world.model.name} exists that is not of this model: rename "
            "one of them",
            stalled=True,
            retry_at=world.now + PERSON_RECHECK,
        )
    for rung in spec.targets:
        hold = _unusable_class(world, rung.accelerator)
        if hold is not None:
            return hold
    for variant in needed_variants(spec, world.classes):
        if variant not in world.runtimes:
            return Hold(
                ConditionType.SOURCE_RESOLVED,
                "RuntimeNotConfigured",
                f"no runtime image is configured for variant {variant}: add it to the chart's `runtimes`",
                stalled=True,
            )
    if world.golden.problem:
        return Hold(
            ConditionType.SOURCE_RESOLVED,
            world.golden.reason,
            world.golden.problem,
            stalled=True,
            retry_at=world.now + PERSON_RECHECK,
        )
    return None


def _unusable_class(world: World, name: str) -> Hold | None:
    """Say why a rung of the ladder could never run the model."""
    classes, wanted = known_classes(world.classes), world.model.spec.model.format
    if name not in classes:
        return Hold(
            ConditionType.SOURCE_RESOLVED,
            "AcceleratorClassNotFound",
            f"AcceleratorClass {name} does not exist: create it, or name one of these in "
            f"targets: {', '.join(sorted(classes))}",
            stalled=True,
        )
    if classes[name].runtime_for(wanted) is None:
        others = sorted(other for other, spec in classes.items() if spec.runtime_for(wanted))
        return Hold(
            ConditionType.SOURCE_RESOLVED,
            "FormatNotSupported",
            f"AcceleratorClass {name} has no runtime for {wanted} models: add one to its `runtimes`, or name "
            f"one of these in targets: {', '.join(others) or 'none has one'}",
            stalled=True,
        )
    return None


def _supply_hold(world: World) -> Hold | None:
    worst = [supply for supply in world.supplies.values() if supply.stage is not SupplyStage.SIGNED]
    if not worst:
        return None
    order = list(SupplyStep)
    failed = [supply for supply in worst if supply.stage is SupplyStage.FAILED or supply.earlier]
    chosen = min(failed or worst, key=lambda supply: order.index((supply.earlier or supply).step))
    if failed:
        return _failure_hold(chosen)
    link = ConditionType.SOURCE_RESOLVED if chosen.step is SupplyStep.PREPARE else LINK_OF_STEP[chosen.step]
    return Hold(
        link,
        RUNNING_REASONS[chosen.step],
        chosen.progress or RUNNING_MESSAGES[chosen.step],
        stalled=False,
    )


def _failure_hold(supply: Supply) -> Hold:
    """Say why a supply failed; while it is tried again that stays so, or each try would look like news.

    A failure that nobody but a person can mend is tried again too, since we do not see them mend it.
    """
    failure = supply.earlier or supply
    again = f"; trying again: {supply.progress}" if supply.earlier else ""
    return Hold(
        LINK_OF_STEP[failure.step],
        failure.reason,
        f"{failure.message}{again}",
        stalled=failure.needs_person,
        retry_at=supply.retry_at,
        source_unseen=failure.step is SupplyStep.PREPARE,
    )


RUNNING_REASONS = {
    SupplyStep.PREPARE: "Fetching",
    SupplyStep.SOURCE: "Fetching",
    SupplyStep.BUILD: "Building",
    SupplyStep.SIGN: "Signing",
}
RUNNING_MESSAGES = {
    SupplyStep.PREPARE: "the build begins",
    SupplyStep.SOURCE: "the model is being fetched",
    SupplyStep.BUILD: "the image is being built",
    SupplyStep.SIGN: "the image is being signed",
}


def _trust_hold(world: World) -> Hold | None:
    for variant in sorted(world.supplies):
        supply = world.supplies[variant]
        image = supply.image
        verdict = world.verdicts.get(image, Verdict(Trust.UNKNOWN, "Verifying", f"{image} is being verified"))
        if verdict.trust is Trust.UNTRUSTED:
            # As with a failure: that it is tried again is no news until the try has an end.
            again = f"; trying again: {supply.progress}" if supply.progress else ""
            return Hold(
                ConditionType.TRUSTED,
                verdict.reason,
                f"{verdict.message}{again}",
                stalled=True,
                retry_at=world.now + PERSON_RECHECK,
            )
        if verdict.trust is Trust.UNKNOWN:
            return Hold(
                ConditionType.TRUSTED,
                verdict.reason,
                verdict.message,
                stalled=verdict.needs_person,
                retry_at=world.now + PERSON_RECHECK,
            )
    return None


DONE = {
    ConditionType.SOURCE_RESOLVED: ("Resolved", "the model file is the one that the spec names"),
    ConditionType.BUILT: ("Built", "the image holds every platform that is needed"),
    ConditionType.SIGNED: ("Signed", "the index and every platform manifest are signed"),
    ConditionType.TRUSTED: ("Verified", "the signatures in the registry satisfy every matching TrustPolicy"),
}


def _findings(hold: Hold | None) -> tuple[Finding, ...]:
    """Say True for the links before the broken one, the reason for it, and Unknown for those after it."""
    findings = []
    broken = LINKS.index(hold.link) if hold is not None else len(LINKS)
    for position, link in enumerate(LINKS):
        unseen = hold is not None and hold.source_unseen and link is ConditionType.SOURCE_RESOLVED
        if position < broken and not unseen:
            reason, message = DONE[link]
            findings.append(Finding(type=link, status=ConditionStatus.TRUE, reason=reason, message=message))
        elif hold is not None and position == broken:
            findings.append(
                Finding(type=link, status=ConditionStatus.FALSE, reason=hold.reason, message=hold.message)
            )
        else:
            waits = f"waits for {LINKS[broken]}"
            findings.append(
                Finding(type=link, status=ConditionStatus.UNKNOWN, reason="Waiting", message=waits)
            )
    return tuple(findings)
