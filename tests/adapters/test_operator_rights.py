"""The rights that the chart gives the operator, against a real API server: they are enough for what it does.

An installed product may be beside it, and look at the objects of these tests as well.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.base import Cluster as TestCluster
from cluster.tools import tool
from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeApi, KubeError, connect
from edgemodel_operator.adapters.lease import Lease
from edgemodel_operator.adapters.policy_status import PolicyObjects
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.api.names import API_VERSION, GROUP, VERSION
from edgemodel_operator.api.trustpolicy_status import TrustPolicyStatus
from edgemodel_operator.core.audit_status import News
from edgemodel_operator.handlers import Wakeups, make_registry, make_settings
from edgemodel_operator.main import LEASE_NAME
from edgemodel_operator.reconcile.queue import Queue
from edgemodel_operator.settings import Settings
from edgemodel_operator.signing.keys import LocalKey
from support.audit_site import serve_definitions
from support.chart import render_chart
from support.own_group import MINIMAL

pytestmark = pytest.mark.needs("api")

Json = dict[str, Any]
NAME = "operator-rights"
"""Of the namespace, which stands for the release's, and of everything cluster-wide."""
ACCOUNT = "edgemodel-operator"
SECONDS = 60


@pytest.fixture(scope="module")
def cluster(edge_cluster: TestCluster) -> Iterator[TestCluster]:
    """Give an API server with an account that has what the chart gives the operator, and no more."""
    serve_definitions(edge_cluster)
    rendered = render_chart(tool("helm"), {}, ("--namespace", NAME))
    documents: list[Json] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}}]
    for (kind, name), document in rendered.items():
        if name.rpartition("/")[2] == ACCOUNT and (kind == "ServiceAccount" or "Role" in kind):
            if kind.startswith("Cluster"):
                document["metadata"] = {"name": NAME}
            if kind == "ClusterRoleBinding":
                document["roleRef"]["name"] = NAME
            documents.append(document)
    edge_cluster.kubectl("apply", "-f", "-", stdin=as_list(*documents))
    yield edge_cluster
    edge_cluster.kubectl("delete", "trustpolicy,clusterrole,clusterrolebinding", NAME, "--ignore-not-found")
    edge_cluster.kubectl("delete", "namespace", NAME, "--wait=false")


@pytest.fixture(scope="module")
def kubeconfig(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a kubeconfig with which whoever reads it is the account."""
    token = cluster.kubectl("create", "token", ACCOUNT, f"--namespace={NAME}", "--duration=1h").strip()
    config = cluster.kubectl_json("config", "view", "--raw")
    config["users"] = [{"name": NAME, "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = NAME
    path = tmp_path_factory.mktemp("rights") / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeApi]:
    async with connect(str(kubeconfig)) as api:
        yield api


def as_list(*documents: Json) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}).encode()


def made(cluster: TestCluster, kind: str, **metadata: str) -> Json:
    """Make a small object of one of our kinds, as an administrator."""
    pem = LocalKey(ec.generate_private_key(ec.SECP256R1())).public_key.pem.decode()
    policy = {"images": ["nobody.plant-a.local/**"], "authorities": [{"name": "a", "keys": [{"data": pem}]}]}
    spec = policy if kind == "TrustPolicy" else MINIMAL[kind]
    document = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    answer = cluster.kubectl("apply", "-o", "json", "-f", "-", stdin=json.dumps(document).encode())
    stored: Json = json.loads(answer)
    return stored


async def set_finalizer(adapter: Cluster, kube: KubeApi, path: str, *, present: bool) -> None:
    """Set or take off the finalizer of what is there now, whoever else changes it."""
    async with asyncio.timeout(SECONDS):
        while True:
            raw = await kube.get(path)
            assert raw is not None
            try:
                return await adapter.set_finalizer(raw, present=present)
            except KubeError as error:
                if error.status != 409:
                    raise


async def test_everything_is_watched_that_wakes_a_model(
    cluster: TestCluster, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    wakeups, ready, stop = Wakeups(Queue()), asyncio.Event(), asyncio.Event()
    watching = asyncio.create_task(
        kopf.operator(
            registry=make_registry(),
            settings=make_settings(),
            memo=wakeups,
            standalone=True,
            clusterwide=True,
            ready_flag=ready,
            stop_flag=stop,
        )
    )
    name = f"model-{secrets.token_hex(4)}"
    try:
        async with asyncio.timeout(SECONDS):
            await ready.wait()
            made(cluster, "EdgeModel", name=name, namespace=NAME)
            made(cluster, "TrustPolicy", name=NAME)
            while (NAME, name) not in wakeups.models.values() or ("", NAME) not in wakeups.trust_generations:
                assert not watching.done()
                await asyncio.sleep(0.1)
    finally:
        stop.set()
        await watching


async def test_everything_is_written_that_the_operator_says_of_models_and_policies(
    cluster: TestCluster, kube: KubeApi
) -> None:
    name = f"model-{secrets.token_hex(4)}"
    raw = made(cluster, "EdgeModel", name=name, namespace=NAME)
    adapter = Cluster(kube, NAME, "operator-0")
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{NAME}/edgemodels/{name}"
    await set_finalizer(adapter, kube, path, present=True)
    await adapter.write_status(NAME, name, EdgeModelStatus(observed_generation=1))
    await adapter.emit(raw, "Normal", "Tested", "an event")
    await set_finalizer(adapter, kube, path, present=False)

    policy = made(cluster, "TrustPolicy", name=NAME)
    objects = PolicyObjects(kube, NAME, "operator-0", "team=line")
    await objects.write_status(NAME, TrustPolicyStatus(observed_generation=1))
    for _ in range(2):  # the second time the event that is there is changed
        await objects.tell(policy, News("Normal", "Tested", "", "an event"), datetime.now(UTC))
    assert await objects.list_guarded() == frozenset()
    assert (await objects.list_policies())[0]["metadata"]["name"]


async def test_the_lease_is_taken_renewed_and_given_back(cluster: TestCluster, kube: KubeApi) -> None:
    lease = Lease(kube, NAME, LEASE_NAME, "operator-0", lambda: datetime.now(UTC))
    await lease.acquire()
    assert await lease._renew()
    await lease.release()


async def test_classes_of_the_values_are_applied_anew(kube: KubeApi) -> None:
    (item,) = Settings.model_validate(
        {
            "acceleratorClasses": [
                {"name": f"class-{secrets.token_hex(4)}", "spec": MINIMAL["AcceleratorClass"]}
            ]
        }
    ).accelerator_classes
    adapter = Cluster(kube, NAME, "operator-0")
    for _ in range(2):
        await adapter.apply_class(item.name, item.spec)
