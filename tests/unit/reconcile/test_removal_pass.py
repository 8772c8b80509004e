"""A whole pass over a fake cluster: what other models have recorded is asked for and spared."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, VariantImage
from edgemodel_operator.api.names import FINALIZER
from edgemodel_operator.core.garbage import RemovalError
from edgemodel_operator.core.world import Trust, Verdict
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.reconcile.garbage import ImageSweeper
from edgemodel_operator.reconcile.ports import Ports
from edgemodel_operator.reconcile.reconcile import reconcile
from edgemodel_operator.reconcile.supplies import Supplies
from support.builders import make_model

KEY = ("plant", "line")
VARIANT = "onnxruntime-cpu"
RUNTIME = f"registry.example.com/runtime@sha256:{'f' * 64}"
IMAGES = tuple(
    VariantImage(
        variant=VARIANT,
        build_key="now" if number == 0 else f"key-{number}",
        image=f"registry.example.com:5000/models/line@sha256:{number:064}",
    )
    for number in range(5)
)


@dataclass
class FakeCluster:
    """One model with its recorded images, and other models; keeps what is written."""

    spec: dict[str, Any]
    others: tuple[dict[str, Any], ...] = ()
    status: EdgeModelStatus = field(
        default_factory=lambda: EdgeModelStatus(images=IMAGES[:1], retained_images=IMAGES)
    )
    deleted: bool = False
    finalizers: list[str] = field(default_factory=lambda: [FINALIZER])
    events: list[str] = field(default_factory=list)
    takes_events: bool = True
    asked_for_models: int = 0

    async def get_model(self, namespace: str, name: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "namespace": namespace,
            "name": name,
            "uid": "ours",
            "generation": 1,
            "finalizers": self.finalizers,
        }
        if self.deleted:
            metadata["deletionTimestamp"] = "2026-11-21T12:00:00Z"
        return {"metadata": metadata, "spec": self.spec, "status": self.status.to_raw()}

    async def list_models(self) -> tuple[dict[str, Any], ...]:
        self.asked_for_models += 1
        return (await self.get_model(*KEY), *self.others)

    async def nothing(self, *_: object) -> tuple[()]:
        return ()

    list_nodes = list_pods = list_children = list_policies = nothing

    async def list_classes(self) -> dict[str, Any]:
        return {}

    async def get_service(self, *_: object) -> None:
        return None

    async def apply(self, document: object) -> None:
        """Take it."""

    async def write_status(self, namespace: str, name: str, status: EdgeModelStatus) -> None:
        self.status = EdgeModelStatus.model_validate(status.to_raw())

    async def set_finalizer(self, raw: object, *, present: bool) -> None:
        self.finalizers = [FINALIZER] if present else []

    async def emit(self, raw: object, kind: str, reason: str, message: str) -> None:
        if not self.takes_events:
            raise KubeError(403, "the namespace is being deleted")
        self.events.append(reason)


@dataclass
class FakeRegistry:
    """Removes images, verifies and makes none."""

    removed: list[str] = field(default_factory=list)
    failure: RemovalError | None = None

    async def remove(self, image: VariantImage, credentials: Mapping[str, Credential]) -> bool:
        if self.failure is not None:
            raise self.failure
        self.removed.append(image.image)
        return True

    async def verify(self, *_: object) -> Verdict:
        return Verdict(Trust.TRUSTED)

    def build_key(self, job: object) -> str:
        return "now"


@dataclass
class Operator:
    """The passes of an operator over a fake cluster and a fake registry."""

    cluster: FakeCluster
    registry: FakeRegistry = field(default_factory=FakeRegistry)

    def __post_init__(self) -> None:
        cluster: Any = self.cluster
        registry: Any = self.registry
        metrics = Metrics()
        self.woken = asyncio.Event()
        clock = datetime(2026, 11, 21, tzinfo=UTC).replace
        self.sweeper = ImageSweeper(cluster, registry, metrics, clock=clock, wake=lambda *_: self.woken.set())
        unused: Any = None
        self.ports = Ports(cluster, unused, registry, self.sweeper, metrics, clock, {VARIANT: RUNTIME})
        self.supplies = Supplies(
            cluster, registry, unused, metrics, clock=clock, wake=lambda *_: None, concurrency=1
        )

    async def run_pass(self, *, sweeps: bool = False) -> None:
        """Do a pass; one that `sweeps` is waited for until that has ended."""
        self.woken.clear()
        await reconcile(KEY, self.ports, self.supplies)
        if sweeps:
            await asyncio.wait_for(self.woken.wait(), timeout=10)


def spec(keep: int = 0, policy: str = "Retain") -> dict[str, Any]:
    return make_model().with_("image.keepImages", keep).with_("image.deletionPolicy", policy).raw


def other(image: str, **metadata: str) -> dict[str, Any]:
    status = {"retainedImages": [{"variant": "cpu", "buildKey": "k", "image": image}]}
    return {"metadata": {"uid": "theirs", **metadata}, "spec": {"not": "valid"}, "status": status}


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(spec())


async def test_what_nothing_needs_goes_and_is_forgotten(cluster: FakeCluster) -> None:
    operator = Operator(cluster)
    await operator.run_pass(sweeps=True)
    assert operator.registry.removed == [item.image for item in IMAGES[2:]]
    await operator.run_pass()
    assert cluster.status.retained_images == IMAGES[:2]


async def test_the_other_models_are_asked_for_only_when_something_is_to_go() -> None:
    cluster = FakeCluster(spec(keep=9))
    await Operator(cluster).run_pass()
    assert cluster.asked_for_models == 0


async def test_what_another_model_has_recorded_is_left_to_it(cluster: FakeCluster) -> None:
    cluster.others = (other(IMAGES[2].image),)
    operator = Operator(cluster)
    await operator.run_pass(sweeps=True)
    assert operator.registry.removed == [IMAGES[3].image, IMAGES[4].image]
    await operator.run_pass()
    assert cluster.status.retained_images == IMAGES[:2]


async def test_a_model_that_goes_itself_holds_nothing_back(cluster: FakeCluster) -> None:
    cluster.others = (other(IMAGES[2].image, deletionTimestamp="2026-11-21T12:00:00Z"),)
    operator = Operator(cluster)
    await operator.run_pass(sweeps=True)
    assert IMAGES[2].image in operator.registry.removed


async def test_a_deleted_model_takes_its_images_along(cluster: FakeCluster) -> None:
    cluster.spec, cluster.deleted = spec(policy="Delete"), True
    operator = Operator(cluster)
    await operator.run_pass(sweeps=True)
    assert cluster.finalizers == [FINALIZER]
    assert operator.registry.removed == [item.image for item in IMAGES]
    await operator.run_pass()
    assert cluster.finalizers == []
    assert cluster.events == []


async def test_a_deleted_model_that_keeps_its_images_goes_at_once(cluster: FakeCluster) -> None:
    cluster.deleted = True
    operator = Operator(cluster)
    await operator.run_pass()
    assert (cluster.finalizers, operator.registry.removed, cluster.asked_for_models) == ([], [], 0)


@pytest.mark.parametrize("takes_events", [True, False])
async def test_a_registry_that_forbids_holds_no_model_back(
    cluster: FakeCluster, *, takes_events: bool
) -> None:
    cluster.spec, cluster.deleted, cluster.takes_events = spec(policy="Delete"), True, takes_events
    operator = Operator(cluster)
    operator.registry.failure = RemovalError("DeletionForbidden", "it forbids to delete", is_final=True)
    await operator.run_pass(sweeps=True)
    await operator.run_pass()
    assert cluster.finalizers == []
    assert cluster.events == (["ImagesLeft"] if takes_events else [])


async def test_a_failure_is_told_by_one_condition_and_one_event(cluster: FakeCluster) -> None:
    operator = Operator(cluster)
    operator.registry.failure = RemovalError("DeletionForbidden", "it forbids to delete", is_final=True)
    await operator.run_pass(sweeps=True)
    for _ in range(3):
        await operator.run_pass()
    found = {item.type: item.reason for item in cluster.status.conditions}
    assert found["RegistryClean"] == "DeletionForbidden"
    assert cluster.events.count("DeletionForbidden") == 1


async def test_a_deleted_model_goes_though_nobody_can_read_it(cluster: FakeCluster) -> None:
    """An older operator, or a stricter one, meets a spec that it does not know."""
    cluster.spec, cluster.deleted = {**spec(policy="Delete"), "ofALaterVersion": 1}, True
    operator = Operator(cluster)
    await operator.run_pass()
    assert cluster.finalizers == []
    assert operator.registry.removed == []


async def test_a_status_of_a_newer_version_is_read_as_far_as_it_is_known(cluster: FakeCluster) -> None:
    known = cluster.status.to_raw()
    newer = {**known, "ofALaterVersion": 1, "retainedImages": [{**known["retainedImages"][0], "more": 1}]}
    assert EdgeModelStatus.model_validate(newer).retained_images == IMAGES[:1]
