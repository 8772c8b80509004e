"""The Secrets and ConfigMaps that a policy names, out of files: nothing is asked of a cluster."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.api.trustpolicy import TrustPolicySpec
from edgemodel_operator.cli.documents import InvalidDocuments
from edgemodel_operator.core.trust import Policy
from edgemodel_operator.signing.keys import SECRET_PUBLIC_KEY

_NAMESPACE = "local"
_OBJECTS = f"/api/v1/namespaces/{_NAMESPACE}"
ANY = ""
"""The name under which a trusted root stands in for every ConfigMap."""


@dataclass(frozen=True)
class LocalObjects:
    """What stands in for the objects of the cluster.

    `secrets` are public keys by the names of the Secrets that hold them there, `config_maps` the entries of
    ConfigMaps, `trusted_roots` what counts in place of a ConfigMap, by its name (ANY: for all others).
    """

    secrets: Mapping[str, bytes] = field(default_factory=dict)
    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    trusted_roots: Mapping[str, bytes] = field(default_factory=dict)

    def store(self, policies: Sequence[Policy]) -> AuthorityStore:
        """Give what finds the keys and identities of these policies.

        Raises InvalidDocuments, with what to write, if one names what is not given.
        """
        objects: dict[str, dict[str, Any]] = {}
        for policy in policies:
            for name in _secrets_of(policy.spec):
                key = base64.b64encode(self._key(policy, name)).decode()
                objects[f"{_OBJECTS}/secrets/{name}"] = {"data": {SECRET_PUBLIC_KEY: key}}
            for name, entry in _roots_of(policy.spec):
                entries = objects.setdefault(f"{_OBJECTS}/configmaps/{name}", {"data": {}})["data"]
                entries[entry] = self._root(policy, name, entry).decode(errors="replace")
        return AuthorityStore(_Objects(objects), _NAMESPACE, time.monotonic)

    def _key(self, policy: Policy, name: str) -> bytes:
        if name in self.secrets:
            return self.secrets[name]
        raise InvalidDocuments(
            f'TrustPolicy "{policy.name}" takes a key from the Secret {name}, which only the cluster has: '
            f"give its public key with --secret {name}=FILE"
        )

    def _root(self, policy: Policy, name: str, entry: str) -> bytes:
        for root in (
            self.trusted_roots.get(name),
            self.config_maps.get(name, {}).get(entry),
            self.trusted_roots.get(ANY),
        ):
            if root is not None:
                return root
        raise InvalidDocuments(
            f'TrustPolicy "{policy.name}" takes a trusted root from the ConfigMap {name}, which only the '
            f"cluster has: give it with --trusted-root {name}=FILE"
        )


@dataclass(frozen=True)
class _Objects:
    """Answers as the API server would."""

    objects: Mapping[str, Mapping[str, Any]]

    async def get(self, path: str) -> Mapping[str, Any] | None:
        return self.objects.get(path)


def _secrets_of(spec: TrustPolicySpec) -> list[str]:
    keys = [key for authority in spec.authorities for key in authority.keys]
    return [key.secret_ref.name for key in keys if key.secret_ref is not None]


def _roots_of(spec: TrustPolicySpec) -> list[tuple[str, str]]:
    keyless = [authority.keyless for authority in spec.authorities if authority.keyless is not None]
    return [(one.trusted_root.name, one.trusted_root.key) for one in keyless]
