"""A source without a SHA-256: what was seen first holds for every variant and every later pass."""

from __future__ import annotations

from dataclasses import replace

from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport
from edgemodel_operator.core.chain import assess
from edgemodel_operator.core.plan import StartSupply, make_plan
from edgemodel_operator.core.supply import SupplyJob, supply_jobs
from edgemodel_operator.core.world import Supply, SupplyStage
from support.builders import NPU_RESOURCE, ModelBuilder, fleet, make_class, make_model, make_node
from support.simulator import Simulation, start

SEEN, CHANGED = "5e" * 32, "c4" * 32
MISSING = Supply(SupplyStage.MISSING)
NODES = [make_node("edge-1").offering(NPU_RESOURCE), make_node("edge-2")]
CPU, NPU = "onnxruntime-cpu", "onnxruntime-npu"


def unpinned(version: str = "v1") -> ModelBuilder:
    model = make_model(version).with_waves("100%").probation(5).on("npu", "cpu")
    return model.with_("model.source", {"http": {"url": "https://files.example.com/line.onnx"}})


def begun(version: str = "v1") -> Simulation:
    simulation = start(unpinned(version), NODES, classes={"npu": make_class()})
    simulation.supplies = {(version, CPU): MISSING, (version, NPU): MISSING}
    simulation.run_pass()  # the finalizer
    return simulation


def fetched(simulation: Simulation, version: str, variant: str, digest: str) -> Supply:
    report = ModelReport(files=(ModelFile(name="line.onnx", sha256=digest, size=3),), parameters=8)
    return replace(simulation.signed(version, variant), report=report)


def started(simulation: Simulation) -> list[str]:
    plan = make_plan(simulation.world())
    return [action.variant for action in plan.actions if isinstance(action, StartSupply)]


def jobs(simulation: Simulation) -> tuple[SupplyJob, ...]:
    world = simulation.world()
    return supply_jobs(world.model, world.runtimes, (CPU, NPU))


def test_only_one_variant_looks_at_a_source_that_is_not_pinned() -> None:
    simulation = begun()
    assert len(started(simulation)) == 1
    simulation.supplies["v1", CPU] = Supply(SupplyStage.RUNNING)
    assert started(simulation) == []


def test_the_next_variant_takes_what_the_first_one_saw() -> None:
    simulation = begun()
    assert {job.digests for job in jobs(simulation)} == {("",)}
    simulation.supplies["v1", CPU] = fetched(simulation, "v1", CPU, SEEN)
    simulation.run_pass()
    assert simulation.status.model is not None
    assert [file.sha256 for file in simulation.status.model.files] == [SEEN]
    assert {job.digests for job in jobs(simulation)} == {(SEEN,)}
    assert started(simulation) == [NPU]


def test_a_source_that_changes_without_a_new_version_changes_nothing() -> None:
    simulation = begun()
    for variant in (CPU, NPU):
        simulation.supplies["v1", variant] = fetched(simulation, "v1", variant, SEEN)
        simulation.run_pass()
    simulation.run_to_rest()
    before = simulation.status
    simulation.touch()
    simulation.run_to_rest()
    assert simulation.status.model == before.model
    assert {job.digests for job in jobs(simulation)} == {(SEEN,)}
    assert simulation.serving("edge-1") == {"v1"}


def test_a_new_version_is_looked_at_anew() -> None:
    simulation = begun()
    for variant in (CPU, NPU):
        simulation.supplies["v1", variant] = fetched(simulation, "v1", variant, SEEN)
        simulation.run_pass()
    simulation.run_to_rest()
    simulation.supplies |= {("v2", CPU): MISSING, ("v2", NPU): MISSING}
    simulation.apply(unpinned("v2"))
    simulation.run_pass()
    assert {job.digests for job in jobs(simulation)} == {("",)}
    assert simulation.status.model is None
    simulation.supplies["v2", CPU] = fetched(simulation, "v2", CPU, CHANGED)
    simulation.run_pass()
    assert {job.digests for job in jobs(simulation)} == {(CHANGED,)}


def test_a_failed_first_look_lets_another_variant_try() -> None:
    simulation = begun()
    simulation.supplies["v1", CPU] = Supply(SupplyStage.FAILED, reason="SourceNotFound", message="no")
    assert started(simulation) == [NPU]


def test_while_one_variant_looks_another_that_failed_asks_for_no_pass_after_pass() -> None:
    simulation = begun()
    failed = Supply(SupplyStage.FAILED, reason="DiskFull", message="no space", retry_at=simulation.now)
    simulation.supplies = {("v1", CPU): failed, ("v1", NPU): Supply(SupplyStage.RUNNING)}
    assert started(simulation) == []
    world = simulation.world()
    assert make_plan(world).look_again_at > world.now


def test_a_spec_that_names_its_digest_starts_all_variants() -> None:
    simulation = start(make_model("v1").on("npu", "cpu"), fleet(2), classes={"npu": make_class()})
    simulation.supplies = {("v1", CPU): MISSING, ("v1", NPU): MISSING}
    simulation.run_pass()
    assert assess(simulation.world()).to_supply == (CPU, NPU)
