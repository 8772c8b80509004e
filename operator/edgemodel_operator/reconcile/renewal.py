"""Changing keys: what is in use already gets the signatures of a new key, and waits for no build.

A pass only verifies the images of the spec, and the old key's signatures verify. So while several keys sign,
this looks after the images of all models in the background: also after those that nodes run since a rollback,
or since they went offline. A status proves nothing: only what one of our keys signed before is signed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.decode import decode_model, decode_workload
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.registries import SecretMissing, read_credentials
from edgemodel_operator.core.garbage import images_in_use
from edgemodel_operator.core.supply import SupplyError
from edgemodel_operator.core.world import Model
from edgemodel_operator.reconcile.ports import Credentials

LOOK_EVERY_S = 300.0

log = logging.getLogger(__name__)


class RenewingSigner(Protocol):
    """Signs again what it signed before. Both methods raise SupplyError and KubeError."""

    async def fingerprints(self) -> frozenset[str]:
        """Name the keys that sign now."""
        ...

    async def renew(self, image: str, credentials: Credentials) -> bool:
        """Have every key sign what one of them signed before; false if none has."""
        ...


class Renewal:
    """Has every key sign the images in use, once for each image and set of keys."""

    def __init__(self, cluster: Cluster, signer: RenewingSigner) -> None:
        self._cluster = cluster
        self._signer = signer
        self._keys: frozenset[str] = frozenset()
        self._done: set[str] = set()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                await self.look()
            except (SupplyError, KubeError) as error:
                log.info("The keys could not be looked after: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Renew what is due; what fails is tried again at the next look. Raises SupplyError and KubeError."""
        keys = await self._signer.fingerprints()
        if keys != self._keys:
            self._keys, self._done = keys, set()
        if len(keys) < 2:
            return
        all_in_use: set[str] = set()
        for raw in await self._cluster.list_models():
            model = _decoded(raw)
            if model is None or model.deleting:
                continue
            workloads = await self._cluster.list_children("DaemonSet", model.namespace, model.key)
            in_use = images_in_use(model.status, map(decode_workload, workloads))
            all_in_use |= in_use
            for image in sorted(in_use - self._done):
                if await self._renew(model, image):
                    self._done.add(image)
        self._done &= all_in_use

    async def _renew(self, model: Model, image: str) -> bool:
        spec = model.spec.image
        names = [secret.name for secret in spec.pull_secrets]
        if spec.push_secret is not None:
            names.append(spec.push_secret.name)
        try:
            credentials = await read_credentials(self._cluster, model.namespace, names)
            renewed = await self._signer.renew(image, credentials)
        except (SupplyError, KubeError, SecretMissing) as error:
            told = {"image": image, "why": str(error)}
            log.warning("An image could not be signed by every key", extra=told)
            return False
        except Exception:
            # One image, whose status somebody may have written, must not end the operator.
            log.exception("signing an image by every key failed unexpectedly", extra={"image": image})
            return True
        if renewed:
            log.info("An image is signed by every key", extra={"image": image, "keys": sorted(self._keys)})
        return True


def _decoded(raw: Mapping[str, Any]) -> Model | None:
    try:
        return decode_model(raw)
    except ValidationError:
        return None  # a pass tells about it
