"""Keeps a program's certificate: in a Secret, where its clients look for the authority, in the TLS server.

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
from edgemodel_operator.web.announcement import Announcement
from edgemodel_operator.web.certificates import (
    InvalidMaterial,
    Material,
    dump_material,
    next_material,
    parse_material,
)

LOOK_EVERY_S = 60.0
FIRST_RETRY_S = 1.0
_MISSING = (
    "the Secret {0} is gone from namespace {1}, and this program may fill it but not create it: "
    "run `helm upgrade` with the release's own chart and values, which creates it anew"
)

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

    @property
    def host(self) -> str:
        """The name by which the program behind the Service is called."""
        return f"{self.service}.{self.namespace}.svc"

    @property
    def secrets_path(self) -> str:
        """The collection of the Secret."""
        return f"/api/v1/namespaces/{self.namespace}/secrets"


class CertificateKeeper:
    """Owns the TLS context of the server and keeps what it presents valid and known to the clients."""

    def __init__(
        self,
        api: KubeApi,
        names: CertificateNames,
        announcement: Announcement,
        metrics: CertificateMetrics,
        now: Callable[[], datetime],
    ) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._api = api
        self._names = names
        self._announcement = announcement
        self._metrics = metrics
        self._now = now
        self._loaded: Material | None = None

    @property
    def ready(self) -> bool:
        """Whether the server presents a certificate that its clients were told to accept."""
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
                _log.warning("The certificate could not be looked after: %s", error)
                pause = FIRST_RETRY_S if pause == LOOK_EVERY_S else min(pause * 2, LOOK_EVERY_S)
            await asyncio.sleep(pause)

    async def look_after(self) -> None:
        """Do what is due now. Raises KubeError; may be repeated at any time.

        The order matters: a certificate is presented only after the clients were told to accept it.
        """
        material = await self._agree()
        await self._announcement.announce(material.ca_bundle)
        if self._loaded is None or material.leaf != self._loaded.leaf:
            _load_chain(self.context, material.leaf_pem)
            _log.info("A new certificate is in use until %s", material.expires.isoformat())
        self._loaded = material
        self._metrics.certificate_expiry.set(material.expires.timestamp())

    async def _agree(self) -> Material:
        """Read the Secret and renew what is due in it; loses gracefully against another replica."""
        for _ in range(5):
            secret = await self._api.get(f"{self._names.secrets_path}/{self._names.secret}")
            if secret is None:
                # Nobody can be given the right to create this one Secret alone, so we have none.
                raise KubeError(404, _MISSING.format(self._names.secret, self._names.namespace))
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

    async def _store(self, secret: dict[str, Any], material: Material) -> None:
        data = {name: base64.b64encode(value).decode() for name, value in dump_material(material).items()}
        metadata = {key: value for key, value in secret["metadata"].items() if key != "managedFields"}
        body = {**secret, "metadata": metadata, "data": {**(secret.get("data") or {}), **data}}
        await self._api.replace(f"{self._names.secrets_path}/{self._names.secret}", body)


def _read_material(secret: dict[str, Any]) -> Material | None:
    encoded = secret.get("data") or {}
    try:
        return parse_material({name: base64.b64decode(value) for name, value in encoded.items()})
    except (InvalidMaterial, binascii.Error) as error:
        _log.warning("The stored certificate cannot be used and is replaced: %s", error)
        return None


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Load key and certificate into a context in use; new connections get them.

    The standard library loads from files only. An anonymous file in memory keeps the key off every disk.
    """
    descriptor = os.memfd_create("edgemodel-tls")
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
