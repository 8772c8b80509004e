"""What the signer counts. Every series exists at zero from the start, so that alerts and rates work."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from edgemodel_operator.signer.messages import Kind
from edgemodel_operator.signing.errors import KeyProblem

UNREAD = "unread"
"""The kind of a message that was refused before it was understood, or of a caller that may not ask."""


class Result(StrEnum):
    """How a request for a signature ended."""

    SIGNED = "signed"
    REFUSED = "refused"
    FAILED = "failed"


class SignerMetrics:
    """The collectors of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.signatures = Counter(
            "edgemodel_signer_signatures",
            "Requests for a signature, by what the message says and by how they ended.",
            ("kind", "result"),
            registry=self.registry,
        )
        self.key_problems = Counter(
            "edgemodel_signer_key_problems",
            "Requests that found a key which cannot be used.",
            ("problem",),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "edgemodel_signer_sign_duration_seconds",
            "Time from a message to its signature.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.events_dropped = Counter(
            "edgemodel_signer_events_dropped",
            "Kubernetes events that were left out: too many, or not accepted by the API server.",
            registry=self.registry,
        )
        self.certificate_failures = Counter(
            "edgemodel_signer_certificate_failures",
            "Failed looks after the signer's certificate.",
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "edgemodel_signer_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires (Unix time); 0 before there is one.",
            registry=self.registry,
        )
        for kind in (*Kind, UNREAD):
            for result in Result:
                self.signatures.labels(kind, result)
        for problem in ("Missing", *KeyProblem):
            self.key_problems.labels(problem)
