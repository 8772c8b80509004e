"""What a revision is made of: images, signatures, golden samples, classes; and what is missing of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from edgemodel_operator.core.world import GoldenSample, Supply, SupplyStage, SupplyStep, Trust, Verdict
from support.builders import ModelBuilder, fleet, make_model, make_node
from support.simulator import Simulation, installed, model_labels, start

CPU_VARIANT = "onnxruntime-cpu"


def simple(version: str) -> ModelBuilder:
    return make_model(version).with_waves(1, "100%").probation(5)


def all_serve(simulation: Simulation, version: str) -> bool:
    return all(simulation.serving(name) == {version} for name in simulation.cluster.nodes)


def test_images_are_made_before_anything_runs() -> None:
    simulation = start(simple("v1"), fleet(2))
    simulation.supplies["v1", CPU_VARIANT] = Supply(SupplyStage.MISSING)
    simulation.run_for(60)
    assert simulation.supplies["v1", CPU_VARIANT].stage is SupplyStage.RUNNING
    assert model_labels(simulation) == []
    assert simulation.condition("SourceResolved").reason == "Fetching"
    assert simulation.condition("Progressing").status == "True"
    assert simulation.condition("Built").status == "Unknown"
    del simulation.supplies["v1", CPU_VARIANT]
    simulation.touch()
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert [image.variant for image in simulation.status.images] == [CPU_VARIANT]


def test_a_failed_build_keeps_the_running_version_and_is_tried_again() -> None:
    simulation = installed(simple("v1"), fleet(2))
    retry_at = simulation.now + timedelta(seconds=90)
    simulation.supplies["v2", CPU_VARIANT] = Supply(
        SupplyStage.FAILED, SupplyStep.BUILD, reason="DiskFull", message="no space", retry_at=retry_at
    )
    simulation.apply(simple("v2"))
    simulation.run_for(60)
    assert all_serve(simulation, "v1")
    assert simulation.condition("Built").reason == "DiskFull"
    assert simulation.condition("Stalled").status == "False"
    assert simulation.supplies["v2", CPU_VARIANT].stage is SupplyStage.FAILED
    simulation.run_for(60)
    assert simulation.supplies["v2", CPU_VARIANT].stage is SupplyStage.RUNNING


def test_an_untrusted_image_never_reaches_a_node() -> None:
    simulation = installed(simple("v1"), fleet(2))
    (trusted,) = [image.image for image in simulation.status.images]
    simulation.verdicts["v2"] = Verdict(
        Trust.UNTRUSTED, "SignatureMissing", "no signature of plant was found"
    )
    simulation.apply(simple("v2"))
    simulation.run_for(600)
    assert all_serve(simulation, "v1")
    assert not any("v2" in simulation.labels(name) for name in simulation.cluster.nodes)
    assert simulation.condition("Trusted").reason == "SignatureMissing"
    assert [image.image for image in simulation.status.images] == [trusted]
    assert simulation.condition("Stalled").status == "True"
    assert simulation.condition("Ready").reason == "SignatureMissing"
    del simulation.verdicts["v2"]
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")


def test_trust_that_is_revoked_in_the_middle_stops_the_waves() -> None:
    simulation = installed(simple("v1"), fleet(3))
    simulation.apply(simple("v2").with_waves(1, "100%", soak=60))
    simulation.run_until(simulation.wave_completed)
    simulation.verdicts["v2"] = Verdict(Trust.UNTRUSTED, "SignatureRevoked", "the policy changed")
    simulation.touch()
    simulation.run_for(600)
    assert sum(simulation.serving(name) == {"v2"} for name in simulation.cluster.nodes) == 1
    assert simulation.condition("Stalled").reason == "SignatureRevoked"


def test_an_image_under_verification_is_waited_for() -> None:
    simulation = start(simple("v1"), fleet(1))
    simulation.verdicts["v1"] = Verdict(Trust.UNKNOWN, "RegistryUnavailable", "the registry does not answer")
    simulation.run_for(100)
    assert model_labels(simulation) == []
    assert simulation.condition("Trusted").reason == "RegistryUnavailable"
    assert simulation.condition("Stalled").status == "False"


def test_a_class_that_does_not_exist_is_named() -> None:
    simulation = start(simple("v1").on("tpu", "cpu"), fleet(1))
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "AcceleratorClassNotFound"
    assert "tpu" in simulation.condition("Ready").message
    assert model_labels(simulation) == []


def test_no_node_matches() -> None:
    simulation = start(simple("v1").selecting(line="9"), fleet(2))
    simulation.run_to_rest()
    assert simulation.condition("Placed").reason == "NoNodeMatches"
    assert simulation.condition("Ready").reason == "NoNodeMatches"
    assert simulation.condition("Available").status == "False"
    assert simulation.status.nodes.summary == "0/0"


@pytest.mark.parametrize(("label", "want_reason"), [("Tainted", "Tainted"), ("NoTargetFits", "NoTargetFits")])
def test_nodes_that_cannot_run_the_model_say_why(label: str, want_reason: str) -> None:
    odd = make_node("odd").tainted("plant/reserved") if label == "Tainted" else make_node("odd").arm64()
    simulation = start(simple("v1"), [odd], platforms=("linux/amd64",))
    simulation.run_to_rest()
    assert simulation.condition("Placed").reason == want_reason
    assert simulation.node_states() == {"odd": "Pending"}
    assert model_labels(simulation) == []


def test_a_changed_golden_sample_is_a_new_revision_with_its_own_copy() -> None:
    golden_model = simple("v1").with_golden().with_waves(1, "100%", soak=60)
    simulation = installed(golden_model, fleet(2), golden=GoldenSample(text='{"inputs": []}'))
    (first,) = copies(simulation)
    simulation.golden = GoldenSample(text='{"inputs": [1]}')
    simulation.touch()
    before = simulation.status.current_revision
    simulation.run_until(lambda: simulation.status.current_revision != before and simulation.wave_completed())
    assert len(copies(simulation)) == 2
    assert first in copies(simulation)
    mounted = {
        item["configMap"]["name"]
        for pod in simulation.cluster.pods
        for item in pod.spec["volumes"]
        if "configMap" in item
    }
    assert mounted == set(copies(simulation))
    simulation.run_to_rest()
    assert first not in copies(simulation)
    assert len(copies(simulation)) == 1


def copies(simulation: Simulation) -> dict[str, str]:
    return {
        name: document["data"]["golden.json"]
        for (kind, name), document in simulation.cluster.objects.items()
        if kind == "ConfigMap"
    }


def test_a_golden_sample_that_is_gone_keeps_what_runs() -> None:
    simulation = installed(simple("v1").with_golden(), fleet(2), golden=GoldenSample(text="{}"))
    (first,) = copies(simulation)
    simulation.golden = GoldenSample(problem="ConfigMap golden does not exist")
    simulation.touch()
    simulation.run_for(600)
    assert all_serve(simulation, "v1")
    assert list(copies(simulation)) == [first]
    assert simulation.condition("Ready").reason == "GoldenSampleNotFound"
    assert simulation.condition("Stalled").status == "True"


def test_the_service_of_somebody_else_is_left_alone() -> None:
    simulation = start(simple("v1"), fleet(2))
    simulation.name_is_taken = True
    simulation.run_for(100)
    assert simulation.condition("Ready").reason == "ServiceNameTaken"
    assert simulation.condition("Stalled").status == "True"
    assert "Service" not in {kind for kind, _ in simulation.cluster.objects}

    simulation.name_is_taken = False
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")


def test_a_platform_that_the_next_image_has_not_is_no_reason_to_stop_what_runs_now() -> None:
    nodes = [make_node("edge-1"), make_node("edge-2").arm64()]
    simulation = installed(simple("v1"), nodes)
    simulation.supplies["v2", CPU_VARIANT] = Supply(SupplyStage.MISSING)
    simulation.apply(simple("v2"))
    simulation.run_for(100)
    assert all_serve(simulation, "v1")
    assert simulation.cluster.gaps == []


def test_a_node_that_no_image_fits_gets_nothing_while_the_next_image_is_made() -> None:
    nodes = [*fleet(3), make_node("odd").arm64()]
    simulation = installed(simple("v1"), nodes, platforms=("linux/amd64",))
    simulation.apply(simple("v2").with_waves(1, "100%", soak=100))
    simulation.run_until(simulation.wave_completed)
    simulation.supplies["v3", CPU_VARIANT] = Supply(SupplyStage.MISSING)
    simulation.apply(simple("v3"))
    simulation.run_for(300)
    assert simulation.condition("SourceResolved").reason == "Fetching"
    assert simulation.labels("odd") == ("", "")


def test_the_status_stays_within_its_bounds() -> None:
    nodes = fleet(22)
    simulation = installed(simple("v1").with_waves("100%"), nodes)
    names = list(simulation.cluster.nodes)
    for number in range(2, 12):
        simulation.cut(names[number])
        simulation.apply(simple(f"v{number}").with_waves("100%"))
        simulation.run_to_rest()
    assert len(simulation.status.revisions) == 8
    assert simulation.status.revisions[0].model_version == "v11"
    simulation.cut(*names)
    simulation.apply(simple("v99"))
    simulation.run_to_rest()
    assert len(simulation.status.node_reports) == 20
    assert simulation.status.last_known_good in {item.name for item in simulation.status.revisions}
    assert simulation.status.nodes.deferred == 22
    simulation.restore(*names)
    simulation.run_to_rest()
    assert all_serve(simulation, "v99")


def test_quarantines_are_bounded_newest_first() -> None:
    simulation = installed(simple("v0"), fleet(2))
    for number in range(1, 11):
        simulation.cluster.behavior[f"v{number}"] = "LoadFailed"
        simulation.apply(simple(f"v{number}"))
        simulation.run_to_rest()
    assert len(simulation.status.quarantined) == 8
    assert simulation.status.quarantined[0].revision == simulation.status.target_revision
    assert all_serve(simulation, "v0")


def on_two_architectures() -> Simulation:
    return installed(simple("v1").with_waves(1, "100%"), [*fleet(2), make_node("arm").arm64()])


def test_a_node_that_only_the_good_image_fits_keeps_it_when_the_next_one_fails() -> None:
    simulation = on_two_architectures()
    simulation.platforms = ("linux/amd64",)
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(simple("v2").with_waves(1, "100%"))
    simulation.run_to_rest()
    assert simulation.condition("Stalled").reason == "RevisionQuarantined"
    assert all_serve(simulation, "v1")
    assert simulation.labels("arm") == ("v1", "")
    assert simulation.status.nodes.total == 3
    assert simulation.cluster.gaps == []


def test_a_node_that_the_next_image_does_not_fit_keeps_the_good_one_until_the_rollout_is_complete() -> None:
    simulation = on_two_architectures()
    simulation.platforms = ("linux/amd64",)
    simulation.apply(simple("v2").with_waves(1, "100%", soak=500))
    simulation.run_until(simulation.wave_completed)
    assert simulation.serving("arm") == {"v1"}
    assert simulation.node_states()["arm"] == "Pending"
    assert "arm (arm64) fits none of: cpu" in simulation.condition("Placed").message
    simulation.run_to_rest()
    assert simulation.labels("arm") == ("", "")
    assert simulation.node_states() == {"arm": "Pending"}
    assert [gap.node for gap in simulation.cluster.gaps] == ["arm"]


def test_a_node_whose_superseded_trial_does_not_fit_any_more_goes_back_to_what_is_good() -> None:
    simulation = on_two_architectures()
    simulation.apply(simple("v2").with_waves("100%").probation(600))
    simulation.run_until(lambda: simulation.labels("arm") == ("v1", "v2"))
    simulation.platforms = ("linux/amd64",)
    simulation.apply(simple("v3").with_waves(1, "100%", soak=500))
    simulation.run_until(simulation.wave_completed)
    assert simulation.labels("arm") == ("v1", "")
    assert simulation.serving("arm") == {"v1"}
    assert simulation.cluster.gaps == []


def test_a_record_of_an_older_operator_knows_no_platforms_and_fits_every_node() -> None:
    simulation = on_two_architectures()
    old = [
        revision.model_copy(
            update={"targets": tuple(item.model_copy(update={"platforms": ()}) for item in revision.targets)}
        )
        for revision in simulation.status.revisions
    ]
    simulation.platforms = ("linux/amd64",)
    simulation.status = simulation.status.model_copy(update={"revisions": tuple(old)})
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(simple("v2").with_waves(1, "100%"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.cluster.gaps == []
