"""What the audit reads of the cluster beside pods, and where it reports: policies' status and events."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.api.names import API_VERSION, FIELD_MANAGER, GROUP, VERSION, short
from edgemodel_operator.api.trustpolicy_status import TrustPolicyStatus
from edgemodel_operator.core.audit_status import News
from edgemodel_operator.core.exemption import Exemption, parse_exemption

Raw = dict[str, Any]

POLICIES = f"/apis/{GROUP}/{VERSION}/trustpolicies"
EXCEPTIONS = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/trustexceptions"
EVENTS = "/api/v1/namespaces/default/events"
"""Where events about objects without a namespace are kept, as `kubectl describe` expects."""


class PolicyObjects:
    """Policies, exceptions and guarded namespaces; every method raises KubeError."""

    def __init__(self, kube: KubeApi, namespace: str, instance: str, guarded: str) -> None:
        """`namespace` is the operator's own, `instance` names it in events, `guarded` selects namespaces."""
        self._kube = kube
        self._namespace = namespace
        self._instance = instance
        self._guarded = guarded

    async def list_policies(self) -> tuple[Raw, ...]:
        """Read all TrustPolicies as they are stored."""
        return (await self._kube.list(POLICIES)).items

    async def list_exemptions(self) -> tuple[Exemption, ...]:
        """Read the TrustExceptions that count; one that cannot be understood does not."""
        path = EXCEPTIONS.format(namespace=self._namespace)
        found = [parse_exemption(raw, self._namespace) for raw in (await self._kube.list(path)).items]
        return tuple(one for one in found if one is not None)

    async def list_guarded(self) -> frozenset[str]:
        """Name the namespaces whose pods the admission webhook judges."""
        found = (await self._kube.list("/api/v1/namespaces", labels=self._guarded)).items
        names = {str(raw["metadata"]["name"]) for raw in found}
        return frozenset(names - {self._namespace, "kube-system"})

    async def write_status(self, name: str, status: TrustPolicyStatus) -> None:
        """Write the whole status of a policy; one that is gone is left alone."""
        document = {
            "apiVersion": API_VERSION,
            "kind": "TrustPolicy",
            "metadata": {"name": name},
            "status": status.to_raw(),
        }
        try:
            await self._kube.apply(f"{POLICIES}/{name}/status", document, manager=FIELD_MANAGER)
        except KubeError as error:
            if error.status != 404:
                raise

    async def tell(self, policy: Mapping[str, Any], news: News, now: datetime) -> None:
        """Record an event about a policy; the same news again moves the time of the event that is there."""
        metadata = policy["metadata"]
        time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        name = _event_name(metadata, news)
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "TrustPolicy",
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": news.kind,
            "reason": news.reason,
            "message": news.message[:1024],
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._instance,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        try:
            await self._kube.create(EVENTS, event)
        except KubeError as error:
            if error.status != 409:
                raise
            change = {"message": event["message"], "lastTimestamp": time}
            await self._kube.merge(f"{EVENTS}/{name}", change, manager=FIELD_MANAGER)


def _event_name(metadata: Mapping[str, Any], news: News) -> str:
    about = "\n".join((str(metadata["uid"]), news.kind, news.reason, news.image))
    return f"{short(metadata['name'], 200)}.{hashlib.sha256(about.encode()).hexdigest()[:16]}"


def selector_text(selector: Mapping[str, Any]) -> str:
    """Write a label selector (`matchLabels`, `matchExpressions`) as the API takes it in a query.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api
    """
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        terms.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[expression["operator"]]
        )
    return ",".join(terms)
