"""Where clients of a program learn which certificate authority to accept: one port, two places."""

from __future__ import annotations

import base64
from typing import Any, Protocol

from edgemodel_operator.adapters.kube import KubeApi, KubeError

FIELD_BUNDLE = "ca.crt"
"""The field of the ConfigMap; the name that Kubernetes itself uses for its own authority."""

_REGISTRATION = "/apis/admissionregistration.k8s.io/v1"


class Announcement(Protocol):
    """Tells the clients which authorities to accept."""

    async def announce(self, bundle: bytes) -> None:
        """Make the PEM bundle known, if it is not yet. Raises KubeError; may be repeated at any time."""
        ...


class WebhookAnnouncement:
    """Writes the bundle into every webhook that calls one Service, in the configurations of one name.

    The validating configuration must be there; the mutating one may be missing.
    """

    def __init__(self, api: KubeApi, configuration: str, service: tuple[str, str]) -> None:
        """`service` is the namespace and the name of the Service; `configuration` also names the writer."""
        self._api = api
        self._configuration = configuration
        self._namespace, self._service = service

    async def announce(self, bundle: bytes) -> None:
        """Write the bundle where another one stands."""
        name, text = self._configuration, base64.b64encode(bundle).decode()
        validating = f"{_REGISTRATION}/validatingwebhookconfigurations/{name}"
        configuration = await self._api.get(validating)
        if configuration is None:
            raise KubeError(404, f"there is no ValidatingWebhookConfiguration {name}")
        if not await self._write(validating, configuration, text):
            raise KubeError(0, f"no webhook of {name} calls the Service {self._service}")
        mutating = f"{_REGISTRATION}/mutatingwebhookconfigurations/{name}"
        configuration = await self._api.get(mutating)
        if configuration is not None:
            await self._write(mutating, configuration, text)

    async def _write(self, path: str, configuration: dict[str, Any], bundle: str) -> int:
        """Write the bundle where another one stands; gives how many of the webhooks call us."""
        ours = [webhook for webhook in configuration.get("webhooks") or () if self._calls_us(webhook)]
        behind = [webhook for webhook in ours if webhook["clientConfig"].get("caBundle") != bundle]
        if behind:
            changes = [{"name": webhook["name"], "clientConfig": {"caBundle": bundle}} for webhook in behind]
            version = configuration["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "webhooks": changes}
            await self._api.patch(path, body, manager=self._configuration)
        return len(ours)

    def _calls_us(self, webhook: dict[str, Any]) -> bool:
        service = (webhook.get("clientConfig") or {}).get("service") or {}
        return (service.get("namespace"), service.get("name")) == (self._namespace, self._service)


class ConfigMapAnnouncement:
    """Writes the bundle into the field `ca.crt` of a ConfigMap that is there already."""

    def __init__(self, api: KubeApi, namespace: str, name: str, *, manager: str) -> None:
        """`manager` names the writer."""
        self._api = api
        self._name = name
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._manager = manager

    async def announce(self, bundle: bytes) -> None:
        """Write the bundle if another one, or none, stands there."""
        found = await self._api.get(self._path)
        if found is None:
            raise KubeError(404, f"there is no ConfigMap {self._name}")
        text = bundle.decode()
        if (found.get("data") or {}).get(FIELD_BUNDLE) != text:
            version = found["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "data": {FIELD_BUNDLE: text}}
            await self._api.merge(self._path, body, manager=self._manager)
