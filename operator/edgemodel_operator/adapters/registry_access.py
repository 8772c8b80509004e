"""The way to the registries: one connection pool, and credentials that follow their Secret."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Mapping

import aiohttp

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.oci.auth import Credential, InvalidCredentials, parse_docker_config
from edgemodel_operator.oci.registry import RegistryClient

KEEP_CREDENTIALS_S = 60.0
_DOCKER_CONFIG = ".dockerconfigjson"


class RegistryAccess:
    """Gives a registry client with the credentials of now.

    They come from one Secret of type `kubernetes.io/dockerconfigjson` in the operator's namespace. Pull
    Secrets of the pods under review are not read: that would take the right to read every Secret.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        plain_http: Collection[str],
        secret: tuple[KubeApi, str, str] | None = None,
        *,
        clock: Callable[[], float],
    ) -> None:
        """`secret`: the API, the namespace and name of the Secret; no name: no credentials."""
        self._session = session
        self._plain_http = plain_http
        self._secret = secret if secret is not None and secret[2] else None
        self._clock = clock
        self._until = 0.0
        self._credentials: Mapping[str, Credential] | None = None
        self._client = RegistryClient(session, plain_http=plain_http)

    async def client(self) -> RegistryClient:
        """Give the client. Raises KubeError while the configured Secret cannot be used."""
        if self._secret is not None and self._until <= self._clock():
            credentials = await _read_credentials(*self._secret)
            self._until = self._clock() + KEEP_CREDENTIALS_S
            if credentials != self._credentials:
                self._credentials = credentials
                self._client = RegistryClient(
                    self._session, credentials=credentials, plain_http=self._plain_http
                )
        return self._client


async def _read_credentials(api: KubeApi, namespace: str, name: str) -> Mapping[str, Credential]:
    where = f"the Secret {name} with registry credentials"
    secret = await api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
    if secret is None:
        raise KubeError(404, f"{where} does not exist in namespace {namespace}")
    try:
        return parse_docker_config(base64.b64decode((secret.get("data") or {})[_DOCKER_CONFIG]))
    except KeyError:
        raise KubeError(0, f"{where} has no field {_DOCKER_CONFIG}") from None
    except (InvalidCredentials, binascii.Error):
        raise KubeError(0, f"{where} cannot be read as {_DOCKER_CONFIG}") from None
