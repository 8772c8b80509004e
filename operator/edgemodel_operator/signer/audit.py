"""The trail of the signer: who had what signed with which key, and what was refused. Lines and events."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.signer.callers import Caller
from edgemodel_operator.signer.messages import Claim, Kind

COMPONENT = "edgemodel-signer"
MAX_WAITING_EVENTS = 256
_PREFIX = "system:serviceaccount:"
_SIGNATURES = frozenset({Kind.SIMPLE_SIGNING, Kind.SIGNATURE})

_log = logging.getLogger(__name__)


class Audit:
    """Logs each signature and refusal, and tells the cluster of them in the background.

    An event stands beside the account that asked, or the signer's own where nobody known did. The same thing
    signed again with the same key, or refused again, is the same event: it lasts as long as the API server
    keeps it, an hour by default. The log is complete; events that find no room are dropped and counted.
    """

    def __init__(self, api: KubeApi, namespace: str, pod: str, dropped: Counter) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/events"
        self._namespace = namespace
        self._pod = pod
        self._dropped = dropped
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING_EVENTS)

    def signed(self, caller: Caller, claim: Claim, fingerprint: str) -> None:
        """Tell of a signature."""
        _log.info("Signed", extra={**_who(caller), **_what(claim), "key": fingerprint})
        is_signature = claim.kind in _SIGNATURES
        what = "signed" if is_signature else f"attested {claim.predicate_type} about"
        message = f"{what} {claim.repository}@{claim.digest} with key {fingerprint} for {caller.name}"
        self._tell(caller, "Normal", "ImageSigned" if is_signature else "ImageAttested", message)

    def refused(self, caller: Caller | None, claim: Claim | None, reason: str, message: str) -> None:
        """Tell of a refusal."""
        fields = {**(_who(caller) if caller else {}), **(_what(claim) if claim else {})}
        _log.warning("Refused to sign", extra={**fields, "reason": reason, "why": message})
        about = f" about {claim.repository}@{claim.digest}" if claim else ""
        self._tell(caller, "Warning", "SigningRefused", f"refused{about} ({reason}): {message}")

    def _tell(self, caller: Caller | None, kind: str, reason: str, message: str) -> None:
        if self._waiting.full():
            self._dropped.inc()
            return
        self._waiting.put_nowait(self._event(caller, kind, reason, message))

    async def run(self) -> None:
        """Write events until canceled; one that cannot be written is let go."""
        while True:
            event = await self._waiting.get()
            try:
                await self._api.create(self._path, event)
            except KubeError as error:
                if error.status != 409:
                    self._dropped.inc()
                    _log.warning("An event could not be written: %s", error)

    def _event(self, caller: Caller | None, kind: str, reason: str, message: str) -> dict[str, Any]:
        caller = caller or Caller(f"{_PREFIX}{self._namespace}:{COMPONENT}")
        namespace, _, account = caller.name.removeprefix(_PREFIX).partition(":")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = f"{COMPONENT}.{hashlib.sha256(f'{reason} {message}'.encode()).hexdigest()[:24]}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self._namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "namespace": namespace,
                "name": account,
                "uid": caller.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._pod,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _who(caller: Caller) -> dict[str, str]:
    return {"caller": caller.name, "pod": caller.pod}


def _what(claim: Claim) -> dict[str, str]:
    return {
        "kind": claim.kind,
        "repository": claim.repository,
        "digest": claim.digest,
        "predicateType": claim.predicate_type,
    }
