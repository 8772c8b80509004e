"""What a build may use of the EdgeModel's namespace, logins, Secrets and entries that its spec names; and
where no source may lie: in the networks of the cluster itself."""

from __future__ import annotations

from collections.abc import Mapping

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.registries import SecretMissing, read_credentials, read_secret
from edgemodel_operator.api.source import Source
from edgemodel_operator.core.supply import BuildAccess, SupplyError, SupplyJob
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.reconcile.ports import Credentials

SECRET_HINT = "create it with `kubectl create secret generic`, its fields as the source asks"  # noqa: S105

Given = tuple[Credentials, Mapping[str, bytes]]
"""Logins of registries, or the fields of a Secret."""


async def read_access(cluster: Cluster, job: SupplyJob) -> tuple[BuildAccess, Credentials]:
    """Read all of it, and apart from it the logins for the repository of the image alone.

    Raises SupplyError when something is not there, and KubeError.
    """
    namespace, push = job.namespace, (job.push_secret,) if job.push_secret else ()
    try:
        pull_logins = await read_credentials(cluster, namespace, job.pull_secrets)
        target = {**pull_logins, **await read_credentials(cluster, namespace, push)}
        logins, fields = await _read(cluster, namespace, job.model.source, job.source_secret)
        context_logins, context_fields = await _context(cluster, job)
    except SecretMissing as error:
        raise SupplyError(SupplyStep.SOURCE, error.reason, str(error), needs_person=True) from error
    access = BuildAccess(
        registries={**context_logins, **logins, **target},
        source_secret=fields,
        context_secret=context_fields,
        config_map=await _entries(cluster, namespace, job.model.source),
        cluster_networks=await cluster.list_networks(),
    )
    return access, target


async def _context(cluster: Cluster, job: SupplyJob) -> Given:
    if job.image.dockerfile is None:
        return {}, {}
    return await _read(cluster, job.namespace, job.image.dockerfile.context, job.context_secret)


async def _read(cluster: Cluster, namespace: str, source: Source, secret: str) -> Given:
    if not secret:
        return {}, {}
    if source.oci is not None:
        return await read_credentials(cluster, namespace, (secret,)), {}
    return {}, await read_secret(cluster, namespace, secret, SECRET_HINT)


async def _entries(cluster: Cluster, namespace: str, source: Source) -> Mapping[str, bytes]:
    if source.config_map is None:
        return {}
    name = source.config_map.name
    entries = await cluster.get_config_map_bytes(namespace, name)
    if entries is None:
        message = f"ConfigMap {namespace}/{name} with the model does not exist: create it"
        raise SupplyError(SupplyStep.SOURCE, "ConfigMapNotFound", message, needs_person=True)
    return entries
