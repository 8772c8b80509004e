"""While several keys sign, what is in use gets signatures of all of them: once, and again where it failed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.api.names import model_key
from edgemodel_operator.core.supply import SupplyError
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.reconcile.ports import Credentials
from edgemodel_operator.reconcile.renewal import Renewal

OLD, NEW = "sha256:old", "sha256:new"


def image(name: str) -> str:
    return f"registry.plant-a.local:5000/models/{name}@sha256:{'ab' * 32}"


def edge_model(name: str, **changes: Any) -> dict[str, Any]:
    """Give an EdgeModel as it is stored, with one image in its status."""
    return {
        "metadata": {"namespace": "plant-a", "name": name, "uid": name, **changes.pop("metadata", {})},
        "spec": {
            "model": {
                "format": "ONNX",
                "version": "1",
                "source": {"configMap": {"name": "x", "key": "x"}},
            },
            "image": {
                "repository": "registry.plant-a.local:5000/models/x",
                "pullSecrets": [{"name": "pull"}],
                "pushSecret": {"name": "push"},
            },
            "targets": [{"accelerator": "cpu"}],
        },
        "status": {
            "images": [
                {
                    "variant": "onnxruntime-cpu",
                    "image": image(name),
                    "buildKey": "5c" * 32,
                    "platforms": ["linux/amd64"],
                }
            ]
        },
        **changes,
    }


class Plant:
    """The models, their Secrets, and the signer."""

    def __init__(self, *models: dict[str, Any]) -> None:
        self.models = models
        self.daemon_sets: dict[str, tuple[dict[str, Any], ...]] = {}
        """By the key of their model."""
        self.keys = frozenset({OLD, NEW})
        self.renewed: list[str] = []
        self.credentials: list[Credentials] = []
        self.failing: Exception | None = None
        self.secrets_missing = False

    async def list_models(self) -> tuple[dict[str, Any], ...]:
        return self.models

    async def list_children(self, kind: str, namespace: str, key: str) -> tuple[dict[str, Any], ...]:
        assert kind == "DaemonSet"
        return self.daemon_sets.get(key, ())

    async def get_secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        assert namespace == "plant-a"
        login = base64.b64encode(f"{name}:password".encode()).decode()
        config = {"auths": {f"{name}.plant-a.local": {"auth": login}}}
        return None if self.secrets_missing else {".dockerconfigjson": json.dumps(config).encode()}

    async def fingerprints(self) -> frozenset[str]:
        if isinstance(self.failing, KubeError):
            raise self.failing
        return self.keys

    async def renew(self, name: str, credentials: Credentials) -> bool:
        if self.failing is not None:
            raise self.failing
        self.renewed.append(name)
        self.credentials.append(credentials)
        return True

    def renewal(self) -> Renewal:
        return Renewal(self, self)  # type: ignore[arg-type]


async def test_a_single_key_has_nothing_to_add() -> None:
    plant = Plant(edge_model("a"))
    plant.keys = frozenset({OLD})
    await plant.renewal().look()
    assert plant.renewed == []


async def test_every_image_in_use_is_renewed_once_with_the_logins_of_its_model() -> None:
    plant = Plant(edge_model("a"), edge_model("b"))
    renewal = plant.renewal()
    for _ in range(3):
        await renewal.look()
    assert plant.renewed == [image("a"), image("b")]
    assert [set(one) for one in plant.credentials] == [{"pull.plant-a.local", "push.plant-a.local"}] * 2


async def test_what_nodes_run_is_renewed_also_where_the_spec_asks_for_something_else() -> None:
    """After a rollback the fleet runs the good revision; who was offline has one whose record is gone."""
    rolled_back = edge_model("failed")
    rolled_back["status"]["revisions"] = [
        {
            "name": "0123456789",
            "modelVersion": "1",
            "targets": [{"accelerator": "cpu", "image": image("good"), "provider": "CPU"}],
        }
    ]
    plant = Plant(rolled_back)
    pods = {"spec": {"containers": [{"image": image("older")}]}}
    old = {"metadata": {"name": "offline"}, "spec": {"template": pods}}
    plant.daemon_sets[model_key("plant-a", "failed")] = (old,)
    renewal = plant.renewal()
    for _ in range(2):
        await renewal.look()
    assert sorted(plant.renewed) == [image("failed"), image("good"), image("older")]


async def test_another_key_signs_everything_anew() -> None:
    plant = Plant(edge_model("a"))
    renewal = plant.renewal()
    await renewal.look()
    plant.keys = frozenset({NEW})
    await renewal.look()
    plant.keys = frozenset({NEW, "sha256:next"})
    await renewal.look()
    assert plant.renewed == [image("a")] * 2


async def test_what_failed_is_tried_again_and_holds_up_no_other() -> None:
    plant = Plant(edge_model("a"), edge_model("b"))
    renewal = plant.renewal()
    plant.failing = SupplyError(SupplyStep.SIGN, "RegistryUnavailable", "the registry does not answer")
    await renewal.look()
    plant.failing, plant.secrets_missing = None, True
    await renewal.look()
    assert plant.renewed == []
    plant.secrets_missing = False
    await renewal.look()
    assert plant.renewed == [image("a"), image("b")]


async def test_one_image_that_makes_no_sense_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant(edge_model("a"), edge_model("b"))
    renew = plant.renew

    async def stumble(name: str, credentials: Credentials) -> bool:
        if name == image("a"):
            raise ValueError("no reference")
        return await renew(name, credentials)

    plant.renew = stumble  # type: ignore[method-assign]
    renewal = plant.renewal()
    for _ in range(2):
        await renewal.look()
    assert plant.renewed == [image("b")]
    assert [record.message for record in caplog.records if record.exc_info] == [
        "signing an image by every key failed unexpectedly"
    ]


async def test_models_that_leave_or_cannot_be_read_are_left_alone() -> None:
    leaving = edge_model("a", metadata={"deletionTimestamp": "2026-11-21T10:00:00Z"})
    plant = Plant(leaving, edge_model("b", spec={"from": "a newer version"}), edge_model("c"))
    await plant.renewal().look()
    assert plant.renewed == [image("c")]


async def test_keys_that_cannot_be_found_out_are_asked_for_again() -> None:
    plant = Plant(edge_model("a"))
    renewal = plant.renewal()
    plant.failing = KubeError(0, "the API server does not answer")
    with pytest.raises(KubeError):
        await renewal.look()
    plant.failing = None
    await renewal.look()
    assert plant.renewed == [image("a")]
