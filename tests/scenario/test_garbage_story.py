"""Images that nothing needs any more leave their registry, and no other ever does."""

from __future__ import annotations

import hashlib

import pytest

from edgemodel_operator.core.garbage import DELETION_ATTEMPTS
from edgemodel_operator.core.world import Sweep
from support.builders import ModelBuilder, fleet, make_model
from support.simulator import Simulation, installed

REPOSITORY = "registry.example.com:5000/models/line"
FORBIDDEN = Sweep(reason="DeletionForbidden", message="it forbids to delete", is_final=True)
UNREACHABLE = Sweep(reason="RegistryUnavailable", message="no answer")


def quick(version: str, keep: int = 0) -> ModelBuilder:
    return make_model(version).with_waves("100%").probation(5).with_("image.keepImages", keep)


def image_of(version: str) -> str:
    return f"{REPOSITORY}@sha256:{hashlib.sha256(f'{version}/onnxruntime-cpu'.encode()).hexdigest()}"


def versions_in_registry(simulation: Simulation) -> list[str]:
    known = {image_of(f"v{number}"): f"v{number}" for number in range(1, 30)}
    return sorted(known[image] for image in simulation.registry)


def require_what_is_used(simulation: Simulation) -> None:
    """Whatever a node runs, or would fetch were it restarted now, is in the registry."""
    used = {workload.image for workload in simulation.world().workloads}
    used |= {pod.spec["containers"][0]["image"] for pod in simulation.cluster.pods}
    assert used <= simulation.registry, simulation.summary()


def updated(*versions: str, keep: int = 0, **fields: object) -> Simulation:
    """Give a fleet that has run the versions, one after the other."""
    simulation = installed(quick(versions[0], keep), fleet(3), **fields)
    simulation.watchers.append(require_what_is_used)
    for version in versions[1:]:
        simulation.apply(quick(version, keep))
        simulation.run_to_rest()
    return simulation


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_the_current_the_previous_and_as_many_as_wanted_are_kept(keep: int) -> None:
    simulation = updated("v1", "v2", "v3", "v4", "v5", "v6", keep=keep)
    kept = [f"v{number}" for number in range(5 - keep, 7)]
    assert versions_in_registry(simulation) == kept
    assert [item.image for item in simulation.status.retained_images] == [
        image_of(version) for version in reversed(kept)
    ]


def test_what_an_offline_node_runs_is_kept_until_it_is_back() -> None:
    simulation = installed(quick("v1"), fleet(3))
    simulation.watchers.append(require_what_is_used)
    simulation.cut("edge-3")
    for version in ("v2", "v3", "v4"):
        simulation.apply(quick(version))
        simulation.run_to_rest()
    assert versions_in_registry(simulation) == ["v1", "v3", "v4"]
    simulation.restore("edge-3")
    simulation.run_to_rest()
    assert simulation.serving("edge-3") == {"v4"}
    assert versions_in_registry(simulation) == ["v3", "v4"]


def test_the_last_good_one_is_kept_while_others_fail() -> None:
    simulation = installed(quick("v1"), fleet(3))
    simulation.watchers.append(require_what_is_used)
    for version in ("v2", "v3", "v4"):
        simulation.cluster.behavior[version] = "GoldenMismatch"
        simulation.apply(quick(version))
        simulation.run_to_rest()
    assert simulation.serving("edge-1") == {"v1"}
    assert versions_in_registry(simulation) == ["v1", "v3", "v4"]


def test_an_image_that_is_wanted_again_is_made_again_and_kept() -> None:
    simulation = updated("v1", "v2", "v3")
    assert versions_in_registry(simulation) == ["v2", "v3"]
    simulation.apply(quick("v1"))
    simulation.run_to_rest()
    assert versions_in_registry(simulation) == ["v1", "v3"]
    assert simulation.serving("edge-1") == {"v1"}


def test_what_another_model_has_recorded_is_left_to_that_one() -> None:
    simulation = updated("v1", "v2", claimed=frozenset({image_of("v1")}))
    simulation.apply(quick("v3"))
    simulation.run_to_rest()
    assert versions_in_registry(simulation) == ["v1", "v2", "v3"]
    assert image_of("v1") not in {item.image for item in simulation.status.retained_images}


def test_the_same_digest_of_another_model_elsewhere_is_spared_and_not_forgotten() -> None:
    elsewhere = image_of("v1").replace("models/line", "models/copy")
    simulation = updated("v1", "v2", "v3", claimed=frozenset({elsewhere}))
    assert versions_in_registry(simulation) == ["v1", "v2", "v3"]
    simulation.claimed = frozenset()
    simulation.touch()
    simulation.run_to_rest()
    assert versions_in_registry(simulation) == ["v2", "v3"]


def test_a_registry_that_forbids_deletion_is_told_of_once() -> None:
    simulation = updated("v1", "v2", "v3", registry_fails=FORBIDDEN)
    assert simulation.condition_reason("RegistryClean") == "DeletionForbidden"
    assert simulation.condition_reason("Ready") == "AllNodesUpdated"
    assert versions_in_registry(simulation) == ["v1", "v2", "v3"]
    simulation.registry_fails = None
    simulation.touch()
    simulation.run_to_rest()
    assert simulation.condition_reason("RegistryClean") == "ImagesRemoved"
    assert versions_in_registry(simulation) == ["v2", "v3"]


def test_a_model_without_trouble_has_no_condition_about_it() -> None:
    assert updated("v1", "v2", "v3").condition_reason("RegistryClean") == ""


def test_a_deleted_model_leaves_its_images_where_they_are() -> None:
    simulation = updated("v1", "v2")
    simulation.delete()
    simulation.run_until(lambda: simulation.gone, limit=100)
    assert versions_in_registry(simulation) == ["v1", "v2"]


@pytest.mark.parametrize("kill_after", [None, 0, 1])
def test_a_deleted_model_takes_its_images_along_if_it_says_so(kill_after: int | None) -> None:
    simulation = updated("v1", "v2", claimed=frozenset({image_of("v1")}))
    simulation.watchers.clear()
    simulation.apply(quick("v2").with_("image.deletionPolicy", "Delete"))
    simulation.run_to_rest()
    simulation.delete()
    for _ in range(3):
        simulation.run_pass(kill_after=kill_after)
    simulation.run_until(lambda: simulation.gone, limit=100)
    assert versions_in_registry(simulation) == ["v1"]


@pytest.mark.parametrize(("failing", "tries"), [(FORBIDDEN, 1), (UNREACHABLE, DELETION_ATTEMPTS)])
def test_a_deleted_model_does_not_wait_for_ever(failing: Sweep, tries: int) -> None:
    simulation = updated("v1", "v2", registry_fails=failing)
    simulation.apply(quick("v2").with_("image.deletionPolicy", "Delete"))
    simulation.run_to_rest()
    simulation.delete()
    simulation.run_until(lambda: simulation.gone, limit=100)
    assert simulation.sweep.failures == tries
    assert versions_in_registry(simulation) == ["v1", "v2"]


def test_a_kill_at_any_action_loses_no_image_that_is_needed() -> None:
    going = updated("v1", "v2", "v3", keep=0)
    going.apply(quick("v4"))
    want = ["v3", "v4"]
    killed = 0
    for _ in range(60):
        if going.is_due():
            for kill_after in range(8):
                simulation = going.copy()
                simulation.watchers.append(require_what_is_used)
                simulation.run_pass(kill_after=kill_after)
                killed += 1
                simulation.run_to_rest()
                assert versions_in_registry(simulation) == want
        going.step()
    assert killed > 20
    assert versions_in_registry(going) == want
