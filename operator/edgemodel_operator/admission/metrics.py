"""What the webhook counts. Every series exists at zero from the start, so that alerts and rates work."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edgemodel_operator.api.trustpolicy import Mode


class Outcome(StrEnum):
    """How a request was answered; `error` is a denial because something could not be checked."""

    ALLOW = "allow"
    DENY = "deny"
    ERROR = "error"


class Result(StrEnum):
    """How a verification of one image against one policy ended."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    ERROR = "error"


class Resolution(StrEnum):
    """What became of a tag in a pod."""

    RESOLVED = "resolved"
    LEFT = "left"
    """The registry could not be asked; the validating webhook refuses the tag."""


class AdmissionMetrics:
    """The collectors of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = Counter(
            "edgemodel_admission_decisions",
            "Answers given. Mode Audit: what the answer would have been, while the request was admitted.",
            ("decision", "mode"),
            registry=self.registry,
        )
        self.review_seconds = Histogram(
            "edgemodel_admission_review_duration_seconds",
            "Time from a request to its answer.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 8, 10),
            registry=self.registry,
        )
        self.verify_seconds = Histogram(
            "edgemodel_admission_verify_duration_seconds",
            "Time that one image took to be verified against one policy, from the registry.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.verifications = Counter(
            "edgemodel_admission_verifications",
            "Verifications of one image against one policy, from the registry.",
            ("result",),
            registry=self.registry,
        )
        self.cached = Counter(
            "edgemodel_admission_cached_verdicts",
            "Verdicts that were known already.",
            registry=self.registry,
        )
        self.stale = Counter(
            "edgemodel_admission_stale_verdicts_used",
            "Verdicts older than a day that stood because the registry could not be asked.",
            registry=self.registry,
        )
        self.stored_verdicts = Gauge(
            "edgemodel_admission_stored_verdicts",
            "Verdicts that survive the end of all replicas.",
            registry=self.registry,
        )
        self.verdict_store_failures = Counter(
            "edgemodel_admission_verdict_store_failures",
            "Failed reads and writes of the stored verdicts.",
            registry=self.registry,
        )
        self.exceptions_used = Counter(
            "edgemodel_admission_exceptions_used",
            "Images that were admitted by a TrustException.",
            registry=self.registry,
        )
        self.resolutions = Counter(
            "edgemodel_admission_tag_resolutions",
            "Tags in pods that were to be turned into digests.",
            ("result",),
            registry=self.registry,
        )
        self.shed = Counter(
            "edgemodel_admission_shed_reviews",
            "Requests that were refused at once because too many were under way.",
            registry=self.registry,
        )
        self.trust_changes = Counter(
            "edgemodel_admission_trust_changes",
            "Changes of TrustPolicies and TrustExceptions that were asked for.",
            ("kind", "decision"),
            registry=self.registry,
        )
        self.events_dropped = Counter(
            "edgemodel_admission_events_dropped",
            "Kubernetes events that were left out: too many, or not accepted by the API server.",
            registry=self.registry,
        )
        self.exceptions = Gauge(
            "edgemodel_admission_exceptions",
            "TrustExceptions that were read, also those past their end.",
            registry=self.registry,
        )
        self.policies = Gauge(
            "edgemodel_admission_policies", "TrustPolicies in force.", registry=self.registry
        )
        self.broken_policies = Gauge(
            "edgemodel_admission_broken_policies",
            "TrustPolicies that were not understood; no image that they cover is admitted.",
            registry=self.registry,
        )
        self.policy_watch_failures = Counter(
            "edgemodel_admission_policy_watch_failures",
            "Failed reads of the TrustPolicies.",
            registry=self.registry,
        )
        self.certificate_failures = Counter(
            "edgemodel_admission_certificate_failures",
            "Failed looks after the webhook's certificate.",
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "edgemodel_admission_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires (Unix time); 0 before there is one.",
            registry=self.registry,
        )
        for outcome in Outcome:
            for mode in Mode:
                self.decisions.labels(outcome, mode)
        for result in Result:
            self.verifications.labels(result)
        for resolution in Resolution:
            self.resolutions.labels(resolution)
        for kind in ("TrustPolicy", "TrustException"):
            for decision in (Outcome.ALLOW, Outcome.DENY):
                self.trust_changes.labels(kind, decision)
