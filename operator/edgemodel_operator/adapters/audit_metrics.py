"""The metrics of the audit; every series that a policy can have exists from when the policy is first seen."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from edgemodel_operator.core.audit import NO_POLICY, OTHER_IMAGE, STATIC_POD
from edgemodel_operator.signing.verdict import Reason

RESULTS = ("done", "failed")
REASONS = (*sorted(reason.value for reason in Reason), "NotFromRegistry", OTHER_IMAGE, STATIC_POD)
"""Why a use of an image can be untrusted under a policy."""


class AuditMetrics:
    """What the audit found last, and when that was."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.untrusted = Gauge(
            "edgemodel_untrusted_containers",
            "Uses of images for which a policy does not hold; policy empty: that none covers",
            ("policy", "reason"),
            registry=registry,
        )
        self.images = Gauge("edgemodel_audited_images", "Images in use that were judged", registry=registry)
        self.unverified = Gauge(
            "edgemodel_audit_unverified_images",
            "Images in use of which nothing could be found out",
            registry=registry,
        )
        self.last = Gauge(
            "edgemodel_audit_last_success_timestamp_seconds",
            "When the last audit ended (seconds since 1970)",
            registry=registry,
        )
        self.audits = Counter(
            "edgemodel_audits", "Audits by what became of them", ("result",), registry=registry
        )
        for result in RESULTS:
            self.audits.labels(result)
        self._seen: dict[str, set[str]] = {}
        self.untrusted.labels("", NO_POLICY).set(0)

    def show(self, counts: Mapping[str, Mapping[str, int]], uncovered: int) -> None:
        """Show how many uses each policy refuses, by reason; series of policies that are gone go."""
        self.untrusted.labels("", NO_POLICY).set(uncovered)
        for policy in set(self._seen) - set(counts):
            for reason in self._seen.pop(policy):
                self.untrusted.remove(policy, reason)
        for policy, found in counts.items():
            reasons = self._seen.setdefault(policy, set(REASONS)) | set(found)
            self._seen[policy] = reasons
            for reason in reasons:
                self.untrusted.labels(policy, reason).set(found.get(reason, 0))
