"""What a build may log in with: the user's own docker configuration, and Secrets in the given files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from edgemodel_operator.api.source import Source
from edgemodel_operator.cli.docker_config import read_logins
from edgemodel_operator.cli.documents import Documents, InvalidDocuments
from edgemodel_operator.core.supply import BuildAccess, SupplyJob
from edgemodel_operator.oci.auth import Credential, InvalidCredentials, parse_docker_config

_DOCKER_CONFIG_KEY = ".dockerconfigjson"

Given = tuple[Mapping[str, Credential], Mapping[str, bytes]]
"""Logins of registries, or the fields of a Secret."""


def read_access(
    documents: Documents, job: SupplyJob, docker_config: Path, registries: Iterable[str]
) -> BuildAccess:
    """Give what the build is lent. Raises InvalidCredentials, InvalidDocuments."""
    source, dockerfile = job.model.source, job.image.dockerfile
    logins, fields = _given(documents, source, job.source_secret)
    context_logins, context_fields = (
        _given(documents, dockerfile.context, job.context_secret) if dockerfile else ({}, {})
    )
    entries = source.config_map
    return BuildAccess(
        registries={**read_logins(docker_config, registries), **context_logins, **logins},
        source_secret=fields,
        context_secret=context_fields,
        config_map=_required(documents.config_maps, "ConfigMap", entries.name) if entries else {},
    )


def _given(documents: Documents, source: Source, secret: str) -> Given:
    if not secret:
        return {}, {}
    fields = _required(documents.secrets, "Secret", secret)
    return (_docker_logins(secret, fields), {}) if source.oci is not None else ({}, fields)


def _required(known: Mapping[str, Mapping[str, bytes]], kind: str, name: str) -> Mapping[str, bytes]:
    if name not in known:
        raise InvalidDocuments(f"the source names the {kind} {name}: add its document to the files")
    return known[name]


def _docker_logins(name: str, fields: Mapping[str, bytes]) -> Mapping[str, Credential]:
    if _DOCKER_CONFIG_KEY not in fields:
        raise InvalidCredentials(f"the Secret {name} has no field {_DOCKER_CONFIG_KEY}, as a registry needs")
    try:
        return parse_docker_config(fields[_DOCKER_CONFIG_KEY])
    except InvalidCredentials as error:
        raise InvalidCredentials(f"the Secret {name}: {error}") from error
