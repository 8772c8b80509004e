"""Kubernetes Jobs: made, found again, looked at with their pod and its events, read, and deleted."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError

Raw = Mapping[str, Any]

CONTAINER = "build"
"""The container of a build's pod: there is one."""
TAIL_LINES = 1000
"""How much of a log that was not followed from its beginning is read."""

_LABEL_OWNER = "batch.kubernetes.io/controller-uid"
_STAMPED = re.compile(rb"^(\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:\d\d)) ")
_FRACTION = re.compile(r"\.\d+")


@dataclass(frozen=True)
class JobSeen:
    """A Job as the cluster shows it at one moment."""

    job: Raw
    pod: Raw | None
    """Its newest pod."""
    events: tuple[Raw, ...]
    """About the pod, or about the Job while there is no pod; the newest last. Empty once the pod runs."""


@dataclass(frozen=True)
class LogLine:
    """A line of a pod's log."""

    stamp: str
    """When the node read it, in RFC 3339 with nanoseconds: stamps of one pod can be compared as texts."""
    text: bytes
    """Without its end."""


class Jobs:
    """The Jobs of all namespaces; every method raises KubeError when the API refuses or cannot be asked."""

    def __init__(self, kube: KubeApi) -> None:
        self._kube = kube

    async def create(self, document: Raw) -> bool:
        """Make a Job; false if one of its name exists."""
        try:
            await self._kube.create(_collection(document["metadata"]["namespace"]), document)
        except KubeError as error:
            if error.status == HTTPStatus.CONFLICT:
                return False
            raise
        return True

    async def get(self, namespace: str, name: str) -> Raw | None:
        """Read a Job."""
        return await self._kube.get(f"{_collection(namespace)}/{name}")

    async def find(self, namespace: str, labels: str) -> tuple[Raw, ...]:
        """Read the Jobs that a label selector matches; none where we have no right to look."""
        try:
            return (await self._kube.list(_collection(namespace), labels=labels)).items
        except KubeError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                return ()
            raise

    async def delete(self, namespace: str, name: str) -> None:
        """Delete a Job with its pods; one that is gone is fine."""
        await self._kube.delete(f"{_collection(namespace)}/{name}", propagation="Background")

    async def look(self, namespace: str, name: str) -> JobSeen | None:
        """Look at a Job; None if there is none."""
        job = await self.get(namespace, name)
        if job is None:
            return None
        pod = await self._pod(namespace, job["metadata"]["uid"])
        if pod is not None and (pod.get("status") or {}).get("phase") != "Pending":
            return JobSeen(job, pod, ())
        subject = job if pod is None else pod
        return JobSeen(job, pod, await self._events(namespace, subject["metadata"]["uid"]))

    async def follow(
        self, namespace: str, pod: str, after: str = "", *, follow: bool = True
    ) -> AsyncGenerator[LogLine, None]:
        """Yield the lines of a pod's log with stamps later than `after`, until the log or the stream ends."""
        query = {"container": CONTAINER, "timestamps": "true", "follow": str(follow).lower()}
        # A time of whole seconds gives a few lines again, which their stamps tell.
        query |= {"sinceTime": _FRACTION.sub("", after)} if after else {"tailLines": str(TAIL_LINES)}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        async with aclosing(self._kube.lines(path, query)) as lines:
            async for raw in lines:
                stamped = _STAMPED.match(raw)
                if stamped and (stamp := stamped[1].decode()) > after:
                    yield LogLine(stamp, raw[stamped.end() :].rstrip(b"\n"))

    async def _pod(self, namespace: str, uid: str) -> Raw | None:
        path = f"/api/v1/namespaces/{namespace}/pods"
        pods = (await self._kube.list(path, labels=f"{_LABEL_OWNER}={uid}")).items
        return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)

    async def _events(self, namespace: str, uid: str) -> tuple[Raw, ...]:
        path = f"/api/v1/namespaces/{namespace}/events"
        events = (await self._kube.list(path, fields=f"involvedObject.uid={uid}")).items
        return tuple(sorted(events, key=_told_at))


def _collection(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def _told_at(event: Raw) -> str:
    """Give the time of an event: the old API and the new one write it in different fields."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next((time for time in times if time), event["metadata"].get("creationTimestamp", "")))
