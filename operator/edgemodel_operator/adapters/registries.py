"""Registries: clients with the credentials that a model's Secrets hold, signing, and verification."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.signed_images import find_signed
from edgemodel_operator.core.supply import BuiltImage, SupplyError
from edgemodel_operator.core.trust import (
    AnyPolicy,
    BrokenPolicy,
    PolicyVerdict,
    judge,
    matching_policies,
    mode_of,
)
from edgemodel_operator.core.world import SupplyStep, Trust, Verdict
from edgemodel_operator.oci.auth import Credential, InvalidCredentials, parse_docker_config
from edgemodel_operator.oci.errors import NotFound, RegistryError
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.errors import KeyLoadError, SigningError
from edgemodel_operator.signing.keys import LocalKey, parse_signing_secret
from edgemodel_operator.signing.sign import sign_image
from edgemodel_operator.signing.verdict import Trusted
from edgemodel_operator.signing.verify import verify_image

DOCKER_CONFIG_KEY = ".dockerconfigjson"
DOCKER_CONFIG_HINT = "create it with `kubectl create secret docker-registry`"
Credentials = Mapping[str, Credential]


class SecretMissing(Exception):  # noqa: N818 - reads as the fact it states
    """A Secret that is named does not exist or does not hold what it should; the message says which."""

    reason = "SecretNotFound"


class SecretForbidden(SecretMissing):
    """A Secret that the operator may not read; the message says which, and what allows it."""

    reason = "SecretNotReadable"


@dataclass(frozen=True)
class Registries:
    """Makes registry clients."""

    session: aiohttp.ClientSession
    plain_http: tuple[str, ...]
    upload_hosts: tuple[str, ...] = ()

    def client(self, credentials: Credentials) -> RegistryClient:
        """Give a client that logs in with these credentials."""
        return RegistryClient(
            self.session,
            credentials=credentials,
            plain_http=self.plain_http,
            upload_hosts=self.upload_hosts,
        )


async def read_credentials(cluster: Cluster, namespace: str, names: Sequence[str]) -> Credentials:
    """Read registry credentials from Secrets of a namespace; raises SecretMissing and KubeError."""
    found: dict[str, Credential] = {}
    for name in names:
        data = await read_secret(cluster, namespace, name, DOCKER_CONFIG_HINT)
        if DOCKER_CONFIG_KEY not in data:
            what = f"has no field {DOCKER_CONFIG_KEY}"
            raise SecretMissing(f"Secret {namespace}/{name} {what}: {DOCKER_CONFIG_HINT}")
        try:
            found.update(parse_docker_config(data[DOCKER_CONFIG_KEY]))
        except InvalidCredentials as error:
            raise SecretMissing(f"Secret {namespace}/{name}: {error}") from error
    return found


async def read_secret(cluster: Cluster, namespace: str, name: str, hint: str) -> Mapping[str, bytes]:
    """Read the fields of a Secret; `hint` says how to make one. Raises SecretMissing and KubeError."""
    try:
        data = await cluster.get_secret(namespace, name)
    except KubeError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        remedy = "name its namespace in `modelNamespaces` of the chart"
        raise SecretForbidden(f"the operator may not read Secret {namespace}/{name}: {remedy}") from error
    if data is None:
        raise SecretMissing(f"Secret {namespace}/{name} does not exist: {hint}")
    return data


class ImageSigner:
    """Signs images with the key of one Secret; the key is unsealed once for each content of the Secret."""

    def __init__(self, cluster: Cluster, registries: Registries, namespace: str, secret: str) -> None:
        self._cluster = cluster
        self._registries = registries
        self._namespace = namespace
        self._secret = secret
        self._unsealed: tuple[bytes, LocalKey] | None = None

    async def sign(self, image: str, credentials: Credentials) -> None:
        """Sign an index and its platform manifests; signing twice adds nothing. Raises SupplyError."""
        key = await self._key()
        try:
            await sign_image(self._registries.client(credentials), parse_reference(image), [key])
        except SigningError as error:
            raise SupplyError(SupplyStep.SIGN, "SigningFailed", str(error)) from error
        except RegistryError as error:
            raise SupplyError(SupplyStep.SIGN, "RegistryUnavailable", str(error)) from error

    async def find(self, repository: str, build_key: str, credentials: Credentials) -> BuiltImage | None:
        """Give the complete image of a build key that this key signed, if any. Raises SupplyError."""
        key = await self._key()
        try:
            client = self._registries.client(credentials)
            return await find_signed(client, parse_reference(repository), build_key, key.public_key)
        except RegistryError as error:
            raise SupplyError(SupplyStep.PREPARE, "RegistryUnavailable", str(error)) from error

    async def _key(self) -> LocalKey:
        data = await self._cluster.get_secret(self._namespace, self._secret)
        where = f"{self._namespace}/{self._secret}"
        if data is None:
            message = (
                f"the signing key Secret {where} does not exist: make one with "
                f"`cosign generate-key-pair k8s://{where}` or `edgemodel keygen`"
            )
            raise SupplyError(SupplyStep.SIGN, "SigningKeyNotFound", message, needs_person=True)
        content = hashlib.sha256(repr(sorted(data.items())).encode()).digest()
        if self._unsealed is None or self._unsealed[0] != content:
            try:
                self._unsealed = (content, await asyncio.to_thread(parse_signing_secret, data))
            except KeyLoadError as error:
                message = f"Secret {where}: {error}"
                raise SupplyError(SupplyStep.SIGN, "SigningKeyInvalid", message, needs_person=True) from error
        return self._unsealed[1]


class ImageVerifier:
    """Verifies images against the TrustPolicies that match them, from the bytes in the registry."""

    def __init__(self, authorities: AuthorityStore, registries: Registries) -> None:
        self._authorities = authorities
        self._registries = registries

    async def verify(
        self, image: str, namespace: str, policies: Sequence[AnyPolicy], credentials: Credentials
    ) -> Verdict:
        """Give the verdict on an image (by digest) that is to run in a namespace; trouble is UNKNOWN."""
        name = image.partition("@")[0]
        matching = matching_policies(policies, name, namespace)
        client = self._registries.client(credentials)
        try:
            verdicts = [await self._apply(client, image, policy) for policy in matching]
        except NotFound as error:
            return Verdict(Trust.UNTRUSTED, "ImageNotFound", f"{image} is not in its registry: {error}")
        except RegistryError as error:
            return Verdict(Trust.UNKNOWN, "RegistryUnavailable", f"{image} cannot be verified now: {error}")
        judgement = judge(name, namespace, verdicts)
        if judgement.allowed:
            return Verdict(Trust.TRUSTED)
        reason = "NotTrusted" if matching else "NoTrustPolicy"
        return Verdict(Trust.UNTRUSTED, reason, "; ".join(judgement.refusals))

    async def _apply(self, client: RegistryClient, image: str, policy: AnyPolicy) -> PolicyVerdict:
        mode = mode_of(policy)
        if isinstance(policy, BrokenPolicy):
            return PolicyVerdict(policy.name, mode, trusted=False, missing=policy.problem)
        authorities = await self._authorities.authorities_of(policy)
        verdict = await verify_image(
            client, parse_reference(image), authorities.usable, platforms_signed=True
        )
        if isinstance(verdict, Trusted):
            return PolicyVerdict(policy.name, mode, trusted=True)
        missing = "; ".join([verdict.message, *authorities.problems])
        return PolicyVerdict(policy.name, mode, trusted=False, missing=missing)
