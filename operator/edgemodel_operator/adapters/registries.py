"""Registries: clients with the credentials that a model's Secrets hold, signing, and verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.policy_verifier import CannotVerify, ImageNotFound, PolicyVerifier
from edgemodel_operator.core.trust import (
    AnyPolicy,
    BrokenPolicy,
    Policy,
    PolicyVerdict,
    judge,
    matching_policies,
    mode_of,
)
from edgemodel_operator.core.world import Trust, Verdict
from edgemodel_operator.oci.auth import Credential, InvalidCredentials, parse_docker_config
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient

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


class ImageVerifier:
    """Verifies images against the TrustPolicies that match them, from the bytes in the registry."""

    def __init__(self, authorities: AuthorityStore, registries: Registries) -> None:
        self._verifier = PolicyVerifier(authorities, platforms_signed=True)
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
        except ImageNotFound as error:
            return Verdict(Trust.UNTRUSTED, "ImageNotFound", f"{error}.")
        except CannotVerify as error:
            return Verdict(Trust.UNKNOWN, error.reason, f"{image} cannot be verified now: {error}.")
        judgement = judge(name, namespace, verdicts)
        if judgement.allowed:
            return Verdict(Trust.TRUSTED)
        reason = "NotTrusted" if matching else "NoTrustPolicy"
        return Verdict(Trust.UNTRUSTED, reason, "; ".join(judgement.refusals))

    async def fingerprint(self, image: str, namespace: str, policies: Sequence[AnyPolicy]) -> str | None:
        """Name the keys and trusted roots that the verdict hangs on; None while one cannot be read."""
        matching = matching_policies(policies, image.partition("@")[0], namespace)
        asked = [await self._verifier.demand_of(policy) for policy in matching if isinstance(policy, Policy)]
        if any(one.is_unknown for one in asked):
            return None
        return " ".join(one.demand.fingerprint for one in asked)

    async def _apply(self, client: RegistryClient, image: str, policy: AnyPolicy) -> PolicyVerdict:
        mode = mode_of(policy)
        if isinstance(policy, BrokenPolicy):
            return PolicyVerdict(policy.name, mode, trusted=False, missing=policy.problem)
        return await self._verifier.verify(client, parse_reference(image), policy)
