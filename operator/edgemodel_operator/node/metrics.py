"""What the agent counts. Every series exists at zero from the start, so that alerts and rates work."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Outcome(StrEnum):
    """How a question was answered; `error` is a refusal because something could not be found out."""

    ALLOW = "allow"
    UNMATCHED = "unmatched"
    """Allowed, because no policy covers the image."""
    DENY = "deny"
    ERROR = "error"


class NodeMetrics:
    """The collectors of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pulls = Counter(
            "edgemodel_node_pulls",
            "Questions of containerd, by answer. All zero: containerd does not ask on this node.",
            ("decision",),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "edgemodel_node_pull_duration_seconds",
            "Time from a question to its answer.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 7),
            registry=self.registry,
        )
        self.remembered = Counter(
            "edgemodel_node_remembered_verdicts",
            "Verdicts that this node knew from before.",
            registry=self.registry,
        )
        self.watch_failures = Counter(
            "edgemodel_node_watch_failures",
            "Failed reads of policies, exceptions or the DaemonSet.",
            registry=self.registry,
        )
        self.installed = Gauge(
            "edgemodel_node_installed",
            "1 while containerd on this node is set to ask.",
            registry=self.registry,
        )
        for outcome in Outcome:
            self.pulls.labels(outcome)
