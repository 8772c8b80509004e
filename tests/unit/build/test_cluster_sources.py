"""A source in the cluster's own networks is refused, unless the configuration allows that place."""

from __future__ import annotations

from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.supplier import WorkerBuilder
from edgemodel_operator.core.supply import BuildAccess
from edgemodel_operator.settings import SourceSettings
from support.build_jobs import on_volume, supply

ACCESS = BuildAccess(cluster_networks=("10.43.0.0/16", "fd00:43::/112"))


def objection(address: str, sources: SourceSettings) -> str | None:
    limits = WorkerBuilder(sources, ()).request(supply(on_volume()), ACCESS).source_limits
    return AddressPolicy.parse(limits.denied_networks, limits.allowed_networks).objection(address)


def test_services_are_refused_besides_what_the_configuration_denies() -> None:
    sources = SourceSettings(denied_networks=("192.0.2.0/24",))
    for address in ("10.43.0.1", "fd00:43::1", "::ffff:10.43.0.1", "192.0.2.7"):
        assert objection(address, sources) is not None
    assert objection("10.44.0.1", sources) is None


def test_the_configuration_allows_one_service() -> None:
    sources = SourceSettings(allowed_networks=("10.43.0.9/32",))
    assert objection("10.43.0.9", sources) is None
    assert objection("10.43.0.8", sources) is not None
