"""Placement: the first rung of the ladder that a node fits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.api.edgemodel import Placement as PlacementSpec
from edgemodel_operator.core.placement import CPU_CLASS, Placement, Rung, place
from edgemodel_operator.generate import ROOT
from edgemodel_operator.settings import NamedClass
from support.builders import NPU_RESOURCE, NodeBuilder, make_node

NPU = Rung("npu", {}, NPU_RESOURCE)
ARM_CPU = Rung("cpu", {}, "", architectures=frozenset({"arm64"}))
CPU = Rung("cpu", {}, "")
GPU = Rung("gpu", {"plant/gpu": "yes"}, "")


def placed(
    *nodes: NodeBuilder,
    ladder: tuple[Rung, ...] = (NPU, GPU, CPU),
    held: Mapping[str, str] | None = None,
    selector: dict[str, str] | None = None,
) -> Placement:
    spec = PlacementSpec(node_selector=selector or {})
    return place(spec, ladder, [node.build() for node in nodes], held or {})


def targets(answer: Placement) -> dict[str, str]:
    return {item.node.name: item.target for item in answer.placed}


@pytest.mark.parametrize(
    ("node", "want"),
    [
        (make_node("n").offering(NPU_RESOURCE), "npu"),
        (make_node("n").offering(NPU_RESOURCE, 0), "cpu"),
        (make_node("n").offering(NPU_RESOURCE, 4).with_label("plant/gpu", "yes"), "npu"),
        (make_node("n").with_label("plant/gpu", "yes"), "gpu"),
        (make_node("n").with_label("plant/gpu", "no"), "cpu"),
        (make_node("n"), "cpu"),
        (make_node("n").offline(), "cpu"),
    ],
)
def test_a_node_takes_the_first_rung_that_it_fits(node: NodeBuilder, want: str) -> None:
    assert targets(placed(node)) == {"n": want}


@pytest.mark.parametrize(
    ("node", "held", "want"),
    [
        (make_node("n").offering(NPU_RESOURCE, 0), "npu", "npu"),
        (make_node("n").offering(NPU_RESOURCE, 0), "cpu", "cpu"),
        (make_node("n"), "npu", "cpu"),
        (make_node("n").offering(NPU_RESOURCE), "cpu", "npu"),
    ],
)
def test_a_silent_plugin_costs_nobody_the_device_that_is_still_listed(
    node: NodeBuilder, held: str, want: str
) -> None:
    assert targets(placed(node, held={"n": held})) == {"n": want}


def test_a_rung_whose_class_is_gone_keeps_its_nodes_and_takes_no_other() -> None:
    gone = Rung("npu", {}, "", only_held=True)
    nodes = [make_node(name).offering(NPU_RESOURCE) for name in ("has", "new")]
    assert targets(placed(*nodes, ladder=(gone, CPU), held={"has": "npu"})) == {"has": "npu", "new": "cpu"}


def test_an_architecture_that_the_image_has_not_is_passed_over() -> None:
    answer = placed(make_node("a").arm64(), make_node("b"), ladder=(ARM_CPU,))
    assert targets(answer) == {"a": "cpu"}
    assert [(item.node, item.reason) for item in answer.rejected] == [("b", "NoTargetFits")]
    assert "amd64" in answer.rejected[0].message


@pytest.mark.parametrize(
    ("key", "effect", "want_reason"),
    [
        ("plant/reserved", "NoSchedule", "Tainted"),
        ("plant/reserved", "NoExecute", "Tainted"),
        ("plant/reserved", "PreferNoSchedule", ""),
        ("node.kubernetes.io/unreachable", "NoExecute", ""),
        ("node.kubernetes.io/unschedulable", "NoSchedule", ""),
    ],
)
def test_taints_that_a_pod_does_not_tolerate_reject_a_node(key: str, effect: str, want_reason: str) -> None:
    answer = placed(make_node("n").tainted(key, effect))
    assert [item.reason for item in answer.rejected] == ([want_reason] if want_reason else [])
    assert bool(answer.placed) is not bool(want_reason)


def test_a_node_outside_the_selector_is_not_even_rejected() -> None:
    answer = placed(make_node("n").labelled(line="4"), make_node("m"), selector={"line": "4"})
    assert targets(answer) == {"n": "cpu"}
    assert answer.rejected == ()


names = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(names, st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_order_of_the_nodes(listed: list[str], random: object) -> None:
    shuffled = sorted(listed, key=lambda name: hash((name, id(random))))
    one, other = (placed(*map(make_node, order)) for order in (listed, shuffled))
    assert one == other
    assert [item.node.name for item in one.placed] == sorted(listed)


def test_the_cpu_class_of_the_chart_is_the_one_that_always_exists() -> None:
    values = yaml.safe_load((ROOT / "charts/edgemodel-operator/values.yaml").read_text(encoding="utf-8"))
    (shipped,) = (NamedClass.model_validate(raw) for raw in values["acceleratorClasses"])
    assert (shipped.name, shipped.spec) == ("cpu", CPU_CLASS)
