"""Fixtures of the adapter tests: real servers on loopback ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from cluster.base import Cluster
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import RetryPolicy, new_session
from support.admission_site import AdmissionSite, admission_site
from support.own_group import serving_own_group
from support.referrers_registry import referrers_registry
from support.registry import FaultyRegistry, RegistryServer, faulty_registry, start_registry

QUICK = RetryPolicy(attempts=4, first_pause=0.001, longest_pause=0.002, longest_retry_after=0.01)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """Share one real registry among all tests; keep apart by repository name."""
    with start_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
async def faulty(registry: RegistryServer) -> AsyncIterator[FaultyRegistry]:
    """Put a misbehaving proxy in front of the shared registry."""
    async with faulty_registry(registry) as proxy:
        yield proxy


@pytest.fixture
async def http_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session as the operator does."""
    async with new_session() as session:
        yield session


@pytest.fixture
def client(http_session: aiohttp.ClientSession, registry: RegistryServer) -> RegistryClient:
    """Return a client of the shared registry."""
    return RegistryClient(http_session, plain_http={registry.host}, retry=QUICK)


@pytest.fixture(params=["fallback tag", "referrers API"])
async def host(request: pytest.FixtureRequest, registry: RegistryServer) -> AsyncIterator[str]:
    """Give the address of a registry of either kind: one that lists referrers, and one that does not."""
    if request.param == "fallback tag":
        yield registry.host
    else:
        async with referrers_registry(registry) as proxy:
            yield proxy.host


@pytest.fixture
def registry_client(http_session: aiohttp.ClientSession, host: str) -> RegistryClient:
    """Return a client of the registry of either kind."""
    return RegistryClient(http_session, plain_http={host})


@pytest.fixture
def own_name(request: pytest.FixtureRequest) -> str:
    """Name the test as a repository may be named."""
    words = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    return "-".join(filter(None, words.split("-")))


@pytest.fixture
def faulty_client(http_session: aiohttp.ClientSession, faulty: FaultyRegistry) -> RegistryClient:
    """Return a client of the misbehaving registry that repeats quickly."""
    return RegistryClient(http_session, plain_http={faulty.host}, retry=QUICK)


@pytest.fixture(scope="module")
def api(edge_cluster: Cluster) -> Iterator[Cluster]:
    """Give an API server that serves our definitions under a group of their own.

    They go with the module: kubectl would take their short names for those of the product.
    """
    with serving_own_group(edge_cluster) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def site(edge_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdmissionSite]:
    """Give a cluster in which the admission program guards `guarded-pods` as the chart registers it."""
    with admission_site(edge_cluster, tmp_path_factory.mktemp("admission"), "guarded-pods") as guarded:
        yield guarded
