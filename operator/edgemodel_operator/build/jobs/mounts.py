"""What a build Job finds in its file system: the request, and what its namespace lends to it.

The operator writes the paths into the Job, the worker inside reads them. Nothing secret is anywhere else.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from edgemodel_operator.api.source import Source
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.request import BuildRequest, Login
from edgemodel_operator.oci.auth import Credential, InvalidCredentials, parse_docker_config

ROOT = "/mnt/edgemodel"
REQUEST = "request/request.json"
REGISTRIES = "registries"
"""Folders `0`, `1`, … hold Secrets with registry logins; of two logins for one host the later counts."""
SECRETS = "secrets"
CONFIG_MAPS = "config-maps"
CLAIMS = "claims"
"""Each of these three holds folders that are named as the objects are."""
DOCKER_CONFIG_KEY = ".dockerconfigjson"


def complete_request(request: BuildRequest, root: Path) -> BuildRequest:
    """Add to a request what is mounted under `root`; raises BuildError."""
    source = request.model.source
    context = request.image.dockerfile.context if request.image.dockerfile else None
    entries = _read_files(root / CONFIG_MAPS / source.config_map.name) if source.config_map else {}
    logins = _read_logins(root / REGISTRIES)
    return request.model_copy(
        update={
            "credentials": tuple(Login.of(host, login) for host, login in sorted(logins.items())),
            "source_secret": _read_secret(root, source),
            "context_secret": _read_secret(root, context) if context else {},
            "volume": str(root / CLAIMS / source.pvc.claim_name) if source.pvc else "",
            "config_map": {name: b64encode(value).decode() for name, value in entries.items()},
        }
    )


def _read_secret(root: Path, source: Source) -> dict[str, SecretStr]:
    secret = getattr(source.chosen, "credentials_secret", None)
    fields = _read_files(root / SECRETS / secret.name) if secret is not None else {}
    return {name: SecretStr(b64encode(value).decode()) for name, value in fields.items()}


def _read_logins(folder: Path) -> Mapping[str, Credential]:
    logins: dict[str, Credential] = {}
    for path in sorted(folder.glob("*"), key=lambda path: int(path.name)):
        try:
            logins.update(parse_docker_config((path / DOCKER_CONFIG_KEY).read_bytes()))
        except FileNotFoundError as error:
            problem = f"A Secret with registry credentials has no field {DOCKER_CONFIG_KEY}."
            raise fail(Reason.REGISTRY_DENIED, problem) from error
        except InvalidCredentials as error:
            raise fail(Reason.REGISTRY_DENIED, str(error)) from error
    return logins


def _read_files(folder: Path) -> dict[str, bytes]:
    """Read a mounted Secret or ConfigMap; names that begin with two dots are the kubelet's own."""
    if not folder.is_dir():
        return {}
    paths = (path for path in sorted(folder.iterdir()) if not path.name.startswith("..") and path.is_file())
    return {path.name: path.read_bytes() for path in paths}
