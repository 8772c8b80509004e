"""Keeps the webhook's certificate: in a Secret, in the webhook configuration, in the TLS server.

Every replica runs the same steps against the same Secret. Writes carry the version that was read, so of two
replicas that act at once one wins and the other takes what it finds.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from prometheus_client import Counter, Gauge

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.api.names import LABEL_MANAGED_BY
from edgemodel_operator.web.certificates import (
    InvalidMaterial,
    Material,
    dump_material,
    next_material,
    parse_material,
)

FIELD_MANAGER = "edgemodel-admission"
LOOK_EVERY_S = 60.0
FIRST_RETRY_S = 1.0
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"

_log = logging.getLogger(__name__)


class CertificateMetrics(Protocol):
    """What is counted."""

    @property
    def certificate_failures(self) -> Counter:
        """Failed looks after the certificate."""
        ...

    @property
    def certificate_expiry(self) -> Gauge:
        """When the certificate in use expires (Unix time)."""
        ...


@dataclass(frozen=True)
class CertificateNames:
    """Where the certificate lives and for whom it is: all names of Kubernetes objects."""

    namespace: str
    secret: str
    service: str
    webhook: str

    @property
    def host(self) -> str:
        """The name by which the API server calls a webhook behind a Service."""
        return f"{self.service}.{self.namespace}.svc"

    @property
    def secrets_path(self) -> str:
        """The collection of the Secret."""
        return f"/api/v1/namespaces/{self.namespace}/secrets"


class CertificateKeeper:
    """Owns the TLS context of the server and keeps what it presents valid and known to the API server."""

    def __init__(
        self,
        api: KubeApi,
        names: CertificateNames,
        metrics: CertificateMetrics,
        now: Callable[[], datetime],
    ) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._api = api
        self._names = names
        self._metrics = metrics
        self._now = now
        self._loaded: Material | None = None

    @property
    def ready(self) -> bool:
        """Whether the server presents a certificate that the API server was told to accept."""
        return self._loaded is not None and self._loaded.expires > self._now()

    async def run(self) -> None:
        """Look after the certificate until canceled; failures are logged and tried again."""
        pause = FIRST_RETRY_S
        while True:
            try:
                await self.look_after()
                pause = LOOK_EVERY_S
            except KubeError as error:
                self._metrics.certificate_failures.inc()
                _log.warning("The webhook's certificate could not be looked after: %s", error)
                pause = FIRST_RETRY_S if pause == LOOK_EVERY_S else min(pause * 2, LOOK_EVERY_S)
            await asyncio.sleep(pause)

    async def look_after(self) -> None:
        """Do what is due now. Raises KubeError; may be repeated at any time.

        The order matters: a certificate is presented only after the API server was told to accept it.
        """
        material = await self._agree()
        await self._announce(material)
        if self._loaded is None or material.leaf != self._loaded.leaf:
            _load_chain(self.context, material.leaf_pem)
            _log.info("A new certificate is in use until %s", material.expires.isoformat())
        self._loaded = material
        self._metrics.certificate_expiry.set(material.expires.timestamp())

    async def _agree(self) -> Material:
        """Read the Secret and renew what is due in it; loses gracefully against another replica."""
        for _ in range(5):
            secret = await self._api.get(f"{self._names.secrets_path}/{self._names.secret}")
            current = _read_material(secret)
            material = next_material(current, self._names.host, self._now())
            if material is current:
                return material
            try:
                await self._store(secret, material)
            except KubeError as error:
                if error.status != 409:
                    raise
            else:
                return material
        raise KubeError(409, f"the Secret {self._names.secret} changes all the time")

    async def _store(self, secret: dict[str, Any] | None, material: Material) -> None:
        data = {name: base64.b64encode(value).decode() for name, value in dump_material(material).items()}
        if secret is not None:
            metadata = {key: value for key, value in secret["metadata"].items() if key != "managedFields"}
            body = {**secret, "metadata": metadata, "data": {**(secret.get("data") or {}), **data}}
            await self._api.replace(f"{self._names.secrets_path}/{self._names.secret}", body)
            return
        labels = {LABEL_MANAGED_BY: FIELD_MANAGER}
        await self._api.create(
            self._names.secrets_path,
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": self._names.secret, "labels": labels},
                "type": "Opaque",
                "data": data,
            },
        )

    async def _announce(self, material: Material) -> None:
        """Put the CA bundle into each webhook of our configuration that calls our Service."""
        path = f"{_WEBHOOKS}/{self._names.webhook}"
        configuration = await self._api.get(path)
        if configuration is None:
            raise KubeError(404, f"there is no ValidatingWebhookConfiguration {self._names.webhook}")
        bundle = base64.b64encode(material.ca_bundle).decode()
        ours = [webhook for webhook in configuration.get("webhooks") or () if self._calls_us(webhook)]
        if not ours:
            raise KubeError(0, f"no webhook of {self._names.webhook} calls the Service {self._names.service}")
        behind = [webhook for webhook in ours if webhook["clientConfig"].get("caBundle") != bundle]
        if behind:
            changes = [{"name": webhook["name"], "clientConfig": {"caBundle": bundle}} for webhook in behind]
            version = configuration["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "webhooks": changes}
            await self._api.patch(path, body, manager=FIELD_MANAGER)

    def _calls_us(self, webhook: dict[str, Any]) -> bool:
        service = (webhook.get("clientConfig") or {}).get("service") or {}
        return (service.get("name"), service.get("namespace")) == (
            self._names.service,
            self._names.namespace,
        )


def _read_material(secret: dict[str, Any] | None) -> Material | None:
    encoded = (secret or {}).get("data") or {}
    try:
        return parse_material({name: base64.b64decode(value) for name, value in encoded.items()})
    except (InvalidMaterial, binascii.Error) as error:
        _log.warning("The stored certificate cannot be used and is replaced: %s", error)
        return None


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Load key and certificate into a context in use; new connections get them.

    The standard library loads from files only. An anonymous file in memory keeps the key off every disk.
    """
    descriptor = os.memfd_create("edgemodel-admission-tls")
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
