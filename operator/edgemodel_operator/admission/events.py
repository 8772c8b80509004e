"""Kubernetes events about refusals and changes of policies: never in the way of an answer, never a flood.

Whoever may create pods can have them refused as often as they like. So the same event is written once in
REPEAT_S, each namespace has a budget, and what does not fit into the queue is dropped and counted. The log
has every line.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.api.names import API_VERSION

COMPONENT = "edgemodel-admission"
REPEAT_S = 600.0
BURST = 10
REFILL_S = 6.0
"""A namespace may have BURST events at once, and one more in each of these spans."""
QUEUE = 256
MAX_REMEMBERED = 1024
MAX_MESSAGE = 1024
"""The limit of the API."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Occurrence:
    """Something that people should see. `kind`, `name` and `uid` say what it is about.

    `namespace` is where the event is written: for an object without a namespace that has to be `default`.
    `repeats` names what counts as the same, and `policy` the TrustPolicy that it is related to, if any.
    """

    kind: str
    name: str
    namespace: str
    reason: str
    message: str
    repeats: str
    warning: bool = True
    policy: str = ""
    uid: str = ""


class EventRecorder:
    """Writes events in the background."""

    def __init__(
        self,
        api: KubeApi,
        instance: str,
        metrics: AdmissionMetrics,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """`instance` names this replica; `clock` gives seconds that never go back, `now` the time in UTC."""
        self._api = api
        self._instance = instance
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE)
        self._seen: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def record(self, occurrence: Occurrence) -> None:
        """Have an event written unless it is a repetition; returns at once and never raises."""
        if self._is_repeated(occurrence):
            return
        if self._queue.full() or not self._may_spend(occurrence.namespace):
            self._metrics.events_dropped.inc()
            return
        self._queue.put_nowait(self._event(occurrence))

    async def run(self) -> None:
        """Send what was recorded until canceled."""
        while True:
            event = await self._queue.get()
            try:
                await self._api.create(f"/api/v1/namespaces/{event['metadata']['namespace']}/events", event)
            except KubeError as error:
                # A namespace that is being deleted takes no events. What happened is in the log.
                self._metrics.events_dropped.inc()
                _log.info("An event was not accepted: %s", error)
            finally:
                self._queue.task_done()

    async def drain(self) -> None:
        """Wait until everything recorded so far was sent or dropped."""
        await self._queue.join()

    def _is_repeated(self, occurrence: Occurrence) -> bool:
        key = (occurrence.namespace, occurrence.reason, occurrence.repeats)
        now, seen = self._clock(), self._seen.get(key)
        if seen is not None and now - seen < REPEAT_S:
            return True
        self._seen[key] = now
        self._seen.move_to_end(key)
        _bound(self._seen)
        return False

    def _may_spend(self, namespace: str) -> bool:
        now = self._clock()
        tokens, since = self._budgets.get(namespace, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - since) / REFILL_S)
        self._budgets[namespace] = (tokens - 1 if tokens >= 1 else tokens, now)
        self._budgets.move_to_end(namespace)
        _bound(self._budgets)
        return tokens >= 1

    def _event(self, occurrence: Occurrence) -> dict[str, Any]:
        time = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        is_ours = occurrence.kind.startswith("Trust")
        about = {
            "apiVersion": API_VERSION if is_ours else "v1",
            "kind": occurrence.kind,
            "name": occurrence.name,
            "uid": occurrence.uid,
        }
        if occurrence.kind != "TrustPolicy":
            about["namespace"] = occurrence.namespace
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{COMPONENT}-", "namespace": occurrence.namespace},
            "involvedObject": about,
            "type": "Warning" if occurrence.warning else "Normal",
            "reason": occurrence.reason,
            "message": occurrence.message[:MAX_MESSAGE],
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "action": "Judge",
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        if occurrence.policy:
            event["related"] = {
                "apiVersion": API_VERSION,
                "kind": "TrustPolicy",
                "name": occurrence.policy,
            }
        return event


def _bound(remembered: OrderedDict[Any, Any]) -> None:
    while len(remembered) > MAX_REMEMBERED:
        remembered.popitem(last=False)
