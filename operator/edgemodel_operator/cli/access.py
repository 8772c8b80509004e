"""What a build may log in with: the user's own docker configuration, and Secrets in the given files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.api.references import SecretName
from edgemodel_operator.api.source import Source
from edgemodel_operator.cli.docker_config import read_logins
from edgemodel_operator.cli.documents import Documents, InvalidDocuments
from edgemodel_operator.core.supply import BuildAccess
from edgemodel_operator.oci.auth import Credential, InvalidCredentials, parse_docker_config

_DOCKER_CONFIG_KEY = ".dockerconfigjson"


def read_access(
    documents: Documents, model: ModelSpec, docker_config: Path, registries: Iterable[str]
) -> BuildAccess:
    """Give what the build is lent. Raises InvalidCredentials, InvalidDocuments."""
    logins = read_logins(docker_config, registries)
    fields, entries = _secret(documents, model.source), _config_map(documents, model.source)
    written = _docker_logins(fields[_DOCKER_CONFIG_KEY]) if _DOCKER_CONFIG_KEY in fields else {}
    return BuildAccess({**logins, **written}, fields, entries)


def _secret(documents: Documents, source: Source) -> Mapping[str, bytes]:
    secret: SecretName | None = getattr(source.chosen, "credentials_secret", None)
    return _required(documents.secrets, "Secret", secret.name) if secret else {}


def _config_map(documents: Documents, source: Source) -> Mapping[str, bytes]:
    entries = source.config_map
    return _required(documents.config_maps, "ConfigMap", entries.name) if entries else {}


def _required(known: Mapping[str, Mapping[str, bytes]], kind: str, name: str) -> Mapping[str, bytes]:
    if name not in known:
        raise InvalidDocuments(f"the source names the {kind} {name}: add its document to the files")
    return known[name]


def _docker_logins(data: bytes) -> dict[str, Credential]:
    try:
        return dict(parse_docker_config(data))
    except InvalidCredentials as error:
        raise InvalidCredentials(f"the Secret of the source: {error}") from error
