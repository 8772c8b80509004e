"""Which images may go: the rules one by one, and for any history."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.api.edgemodel_status import (
    EdgeModelStatus,
    Revision,
    RevisionTarget,
    VariantImage,
)
from edgemodel_operator.api.names import active_label, model_key
from edgemodel_operator.core.garbage import MAX_RETAINED, needed_images, removable, retained, unneeded
from edgemodel_operator.core.world import Model, Pod, Supply, SupplyStage, Sweep, Workload, World
from support.builders import make_model, make_node

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def image(number: int, variant: str = "cpu") -> VariantImage:
    digest = hashlib.sha256(f"{number} {variant}".encode()).hexdigest()
    name = f"registry.example.com:5000/models/line@sha256:{digest}"
    return VariantImage(variant=variant, build_key=f"key-{number}-{variant}", image=name)


def world_of(*recorded: VariantImage, keep: int = 0, **fields: object) -> World:
    """Give a world whose model has recorded the images, the last used first; the first one is in use."""
    status = EdgeModelStatus(images=recorded[:1], retained_images=recorded)
    spec = make_model().with_("image.keepImages", keep).with_("image.deletionPolicy", "Delete").build()
    model = Model("plant", "line", "uid", 1, spec, status)
    return replace(World(NOW, model, claimed=frozenset()), **fields)


def names(images: tuple[VariantImage, ...]) -> list[str]:
    return [item.image for item in images]


@pytest.mark.parametrize(("keep", "gone"), [(0, [2, 3, 4]), (1, [3, 4]), (2, [4]), (9, [])])
def test_two_and_some_more_stay(keep: int, gone: list[int]) -> None:
    world = world_of(*map(image, range(5)), keep=keep)
    assert names(removable(world)) == names(tuple(map(image, gone)))


def test_each_variant_counts_by_itself() -> None:
    recorded = [image(number, variant) for number in range(3) for variant in ("cpu", "npu")]
    assert names(removable(world_of(*recorded))) == [image(2, "cpu").image, image(2, "npu").image]


def test_nothing_goes_before_the_other_models_were_asked() -> None:
    world = world_of(*map(image, range(5)), claimed=None)
    assert unneeded(world)
    assert removable(world) == ()


def test_what_a_pod_or_a_daemon_set_names_stays() -> None:
    pod = Pod("p", "p", "edge-1", "old", "cpu", "serve", NOW, image=image(2).image)
    workload = Workload("w", "old", "cpu", "serve", image=image(3).image)
    world = world_of(*map(image, range(5)), pods=(pod,), workloads=(workload,))
    assert names(removable(world)) == [image(4).image]


def test_what_a_revision_names_stays() -> None:
    target = RevisionTarget(accelerator="cpu", image=image(3).image, provider="CPUExecutionProvider")
    world = world_of(*map(image, range(5)))
    status = world.model.status.model_copy(
        update={"revisions": (Revision(name="r", model_version="1", targets=(target,)),)}
    )
    world = replace(world, model=replace(world.model, status=status))
    assert names(removable(world)) == [image(2).image, image(4).image]


def test_a_revision_that_nobody_knows_any_more_keeps_everything() -> None:
    key = model_key("plant", "line")
    node = make_node("edge-1").with_label(active_label(key), "forgotten.cpu").build()
    world = world_of(*map(image, range(5)), nodes=(node,))
    assert removable(world) == ()
    known = replace(world, workloads=(Workload("w", "forgotten", "cpu", "serve", image=image(3).image),))
    assert names(removable(known)) == [image(2).image, image(4).image]


def test_what_is_being_made_again_stays() -> None:
    supply = Supply(SupplyStage.RUNNING, build_key=image(4).build_key)
    world = world_of(*map(image, range(5)), supplies={"cpu": supply})
    assert names(removable(world)) == [image(2).image, image(3).image]


def test_what_was_just_made_comes_first_and_only_once() -> None:
    old = image(3)
    supply = Supply(SupplyStage.SIGNED, build_key=old.build_key, image=old.image)
    world = world_of(*map(image, range(5)), supplies={"cpu": supply})
    assert names(retained(world)) == names(tuple(map(image, [3, 0, 1, 2, 4])))


def test_what_is_gone_is_forgotten_unless_it_was_made_again() -> None:
    gone = Sweep(gone=frozenset({image(3).image, image(4).image}))
    supply = Supply(SupplyStage.SIGNED, build_key=image(3).build_key, image=image(3).image)
    world = world_of(*map(image, range(5)), sweep=gone, supplies={"cpu": supply})
    assert names(retained(world)) == names(tuple(map(image, [3, 0, 1, 2])))


def test_the_record_is_bounded() -> None:
    supply = Supply(SupplyStage.SIGNED, build_key="new", image=image(999).image)
    world = world_of(*map(image, range(MAX_RETAINED)), supplies={"cpu": supply})
    assert names(retained(world)) == [image(999).image, *names(tuple(map(image, range(MAX_RETAINED - 1))))]


images = st.builds(image, st.integers(0, 12), st.sampled_from(["cpu", "npu"]))
some = st.lists(images, unique_by=lambda item: item.image, max_size=20)


@given(recorded=some, used=some, claims=some, gone=some, keep=st.integers(0, 5), deleting=st.booleans())
def test_whatever_the_history_nothing_needed_or_foreign_goes(
    recorded: list[VariantImage],
    used: list[VariantImage],
    claims: list[VariantImage],
    gone: list[VariantImage],
    keep: int,
    deleting: bool,
) -> None:
    pods = tuple(Pod(item.image, "u", "n", "r", "cpu", "serve", NOW, image=item.image) for item in used)
    world = world_of(
        *recorded,
        keep=keep,
        pods=pods,
        claimed=frozenset(item.image for item in claims),
        sweep=Sweep(gone=frozenset(item.image for item in gone)),
    )
    world = replace(world, model=replace(world.model, deleting=deleting))
    going = set(names(removable(world)))
    assert going <= set(names(tuple(recorded)))
    assert not going & {item.image for item in claims}
    assert not going & {item.image for item in gone}
    assert deleting or not going & needed_images(world)
    # What is to go stays on record until it is gone.
    assert going <= set(names(retained(world)))
