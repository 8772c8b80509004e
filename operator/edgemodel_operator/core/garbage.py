"""Which images of a model are removed from its registry, and when.

A repository may be shared with other models, other clusters and people. So a model removes only what its own
status says was made for it, and of that nothing that anything still needs:

1. what its spec, its revisions, its DaemonSets or its pods name, on nodes online or not
2. for each runtime variant the two images used last, and `image.keepImages` of the others
3. what another model of the cluster has recorded too: that one may remove it, in its time

A deleted model whose `image.deletionPolicy` is Delete needs nothing, but the third rule holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from edgemodel_operator.api.conditions import ConditionStatus, ConditionType, Finding
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, VariantImage
from edgemodel_operator.api.image import DeletionPolicy
from edgemodel_operator.core.revision import digest_of
from edgemodel_operator.core.world import SupplyStage, Workload, World

MAX_RETAINED = 128
"""How many images the status holds."""
CURRENT_AND_PREVIOUS = 2
DELETION_ATTEMPTS = 6
"""How often a deleted model tries to remove its images before it goes without."""


class RemovalError(Exception):
    """An image could not be removed; the message is a sentence for people.

    `is_final`: nothing changes until somebody mends something. `stops`: the next image would fare no better.
    """

    def __init__(self, reason: str, message: str, *, is_final: bool = False, stops: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_final = is_final
        self.stops = stops


def retained(world: World) -> tuple[VariantImage, ...]:
    """List the images that were made for the model and are its own to remove, the last used first."""
    made = [
        VariantImage(
            variant=variant, build_key=supply.build_key, image=supply.image, platforms=supply.platforms
        )
        for variant, supply in sorted(world.supplies.items())
        if supply.stage is SupplyStage.SIGNED
    ]
    surplus = {item.image for item in unneeded(world)}
    shared = (world.claimed or frozenset()) & surplus
    known = [
        item
        for item in world.model.status.retained_images
        if item.image not in world.sweep.gone and item.image not in shared
    ]
    first_of_each: dict[str, VariantImage] = {}
    for item in (*made, *known):
        first_of_each.setdefault(item.image, item)
    return tuple(first_of_each.values())[:MAX_RETAINED]


def unneeded(world: World) -> tuple[VariantImage, ...]:
    """Name the recorded images that the model itself has no need of."""
    recorded = world.model.status.retained_images
    if world.model.deleting:
        policy = world.model.spec.image.deletion_policy
        return recorded if policy is DeletionPolicy.DELETE else ()
    if _unknown_revisions(world):
        return ()
    needed, keys = needed_images(world), {supply.build_key for supply in world.supplies.values()}
    by_variant: defaultdict[str, list[VariantImage]] = defaultdict(list)
    for item in recorded:
        by_variant[item.variant].append(item)
    surplus: list[VariantImage] = []
    for items in by_variant.values():
        free = [
            item
            for position, item in enumerate(items)
            if position >= CURRENT_AND_PREVIOUS and item.image not in needed and item.build_key not in keys
        ]
        surplus += free[world.model.spec.image.keep_images :]
    return tuple(surplus)


def removable(world: World) -> tuple[VariantImage, ...]:
    """Name the images to remove now; none before the other models were asked."""
    if world.claimed is None:
        return ()
    digests = {digest_of(image) for image in world.claimed}
    return tuple(
        item
        for item in unneeded(world)
        if digest_of(item.image) not in digests and item.image not in world.sweep.gone
    )


def holds_finalizer(world: World) -> bool:
    """Say whether a deleted model still waits for its images to be removed."""
    given_up = world.sweep.is_final or world.sweep.failures >= DELETION_ATTEMPTS
    return bool(removable(world)) and not given_up


def needed_images(world: World) -> frozenset[str]:
    """Name the images that the spec asks for, that a node runs, or to which one may go back."""
    supplied = {supply.image for supply in world.supplies.values()}
    running = {pod.image for pod in world.pods}
    return (images_in_use(world.model.status, world.workloads) | supplied | running) - {""}


def images_in_use(status: EdgeModelStatus, workloads: Iterable[Workload]) -> frozenset[str]:
    """Name the images of the spec, and those of every revision that a node has or may go back to.

    After a rollback, and on nodes that were offline, these differ. A DaemonSet may outlive the record of its
    revision.
    """
    return frozenset(_recorded(status, workloads)) - {""}


def _recorded(status: EdgeModelStatus, workloads: Iterable[Workload]) -> Iterator[str]:
    yield from (item.image for item in status.images)
    yield from (target.image for revision in status.revisions for target in revision.targets)
    yield from (workload.image for workload in workloads)


def _unknown_revisions(world: World) -> bool:
    """Say whether a node is assigned a revision of which nobody knows the images any more."""
    known = {revision.name for revision in world.model.status.revisions}
    known |= {workload.revision for workload in world.workloads}
    return bool(world.assigned_revisions() - known)


def registry_finding(world: World) -> Finding | None:
    """Say that images could not be removed, and later that they were; nothing of a model without trouble."""
    kind = ConditionType.REGISTRY_CLEAN
    sweep = world.sweep
    if sweep.reason:
        return Finding(type=kind, status=ConditionStatus.FALSE, reason=sweep.reason, message=sweep.message)
    if any(condition.type == kind for condition in world.model.status.conditions):
        message = "the repository holds no image of this model that nothing needs"
        return Finding(type=kind, status=ConditionStatus.TRUE, reason="ImagesRemoved", message=message)
    return None
