"""Who asks the signer, as a real API server says: tokens for our audience, and what they prove."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cluster.base import Cluster
from edgemodel_operator.adapters.kube import connect
from edgemodel_operator.adapters.signer_protocol import AUDIENCE
from edgemodel_operator.signer.callers import Caller, Callers, NotAuthenticated

pytestmark = pytest.mark.needs("api")

NAMESPACE = "signer-tokens"
ACCOUNT = "edgemodel-operator"


@pytest.fixture(scope="module")
def cluster(edge_cluster: Cluster) -> Iterator[Cluster]:
    """Give an API server with an account in a namespace of its own."""
    edge_cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout", "60s")
    edge_cluster.kubectl("create", "namespace", NAMESPACE)
    edge_cluster.kubectl("create", "serviceaccount", ACCOUNT, "--namespace", NAMESPACE)
    yield edge_cluster
    edge_cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def token(cluster: Cluster, *options: str) -> str:
    return cluster.kubectl("create", "token", ACCOUNT, "--namespace", NAMESPACE, *options).strip()


async def identify(cluster: Cluster, credential: str) -> Caller:
    async with connect(str(cluster.kubeconfig)) as api:
        return await Callers(api, time.monotonic).identify(f"Bearer {credential}")


async def test_a_token_for_the_signer_proves_its_account(cluster: Cluster) -> None:
    caller = await identify(cluster, token(cluster, f"--audience={AUDIENCE}"))
    assert caller.name == f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
    assert caller.uid


@pytest.mark.parametrize("options", [(), ("--audience=somebody-else",)], ids=["API server", "other"])
async def test_a_token_that_was_made_for_others_proves_nothing(
    cluster: Cluster, options: tuple[str, ...]
) -> None:
    with pytest.raises(NotAuthenticated):
        await identify(cluster, token(cluster, *options))


async def test_a_token_that_was_changed_proves_nothing(cluster: Cluster) -> None:
    header, claims, signature = token(cluster, f"--audience={AUDIENCE}").split(".")
    with pytest.raises(NotAuthenticated):
        await identify(cluster, ".".join([header, claims, signature[:-8] + signature[-8:][::-1]]))
    with pytest.raises(NotAuthenticated):
        await identify(cluster, ".".join([header, claims, ""]))


async def test_a_token_of_an_account_that_is_gone_proves_nothing(cluster: Cluster) -> None:
    left = token(cluster, f"--audience={AUDIENCE}")
    cluster.kubectl("delete", "serviceaccount", ACCOUNT, "--namespace", NAMESPACE)
    try:
        with pytest.raises(NotAuthenticated):
            await identify(cluster, left)
    finally:
        cluster.kubectl("create", "serviceaccount", ACCOUNT, "--namespace", NAMESPACE)
