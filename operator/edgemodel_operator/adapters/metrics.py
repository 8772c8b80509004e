"""The operator's metrics; every series with a closed set of labels exists from the start, at zero."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from edgemodel_operator.adapters.audit_metrics import AuditMetrics
from edgemodel_operator.api.conditions import ConditionStatus, ConditionType
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, NodeState

OUTCOMES = ("done", "waiting", "blocked", "broken")
BUILD_RESULTS = ("built", "reused", "failed")
SIGN_RESULTS = ("signed", "failed")
VERIFY_RESULTS = ("trusted", "untrusted", "unknown")
REMOVAL_RESULTS = ("removed", "left", "failed")
ROLLOUT_RESULTS = ("started", "completed", "rolled_back", "stopped")
SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """All collectors of the operator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.audit = AuditMetrics(self.registry)
        self.models = Gauge("edgemodel_models", "EdgeModels that exist", registry=self.registry)
        self.nodes = Gauge(
            "edgemodel_nodes",
            "Nodes that match a model, by their state to its target revision",
            ("namespace", "model", "state"),
            registry=self.registry,
        )
        self.ready_nodes = Gauge(
            "edgemodel_ready_nodes",
            "Nodes on which a model answers",
            ("namespace", "model"),
            registry=self.registry,
        )
        self.wave = Gauge(
            "edgemodel_rollout_wave",
            "The wave under way, from 1; 0 when none is",
            ("namespace", "model"),
            registry=self.registry,
        )
        self.quarantined = Gauge(
            "edgemodel_quarantined_revisions",
            "Revisions of a model that failed and are never rolled out again",
            ("namespace", "model"),
            registry=self.registry,
        )
        self.stalled = Gauge(
            "edgemodel_stalled",
            "1 where a person must act: the condition Stalled is true",
            ("namespace", "model"),
            registry=self.registry,
        )
        self.rollouts = Counter(
            "edgemodel_rollouts", "Rollouts by what became of them", ("result",), registry=self.registry
        )
        self.image_removals = Counter(
            "edgemodel_image_removals",
            "Images to be removed from their registry by what became of them; left: they were not ours",
            ("result",),
            registry=self.registry,
        )
        self.reconciles = self._histogram("edgemodel_reconcile_seconds", "Passes by outcome", "outcome")
        self.builds = self._histogram("edgemodel_build_seconds", "Image builds by result", "result")
        self.signatures = self._histogram("edgemodel_sign_seconds", "Signings by result", "result")
        self.verifications = self._histogram("edgemodel_verify_seconds", "Verifications by result", "result")
        for metric, values in (
            (self.reconciles, OUTCOMES),
            (self.builds, BUILD_RESULTS),
            (self.signatures, SIGN_RESULTS),
            (self.verifications, VERIFY_RESULTS),
            (self.rollouts, ROLLOUT_RESULTS),
            (self.image_removals, REMOVAL_RESULTS),
        ):
            for value in values:
                metric.labels(value)

    def _histogram(self, name: str, text: str, label: str) -> Histogram:
        return Histogram(name, f"{text} (seconds)", (label,), buckets=SECONDS, registry=self.registry)

    def observe_status(self, namespace: str, model: str, status: EdgeModelStatus) -> None:
        """Show the state of one model."""
        counts = status.nodes
        for state, count in (
            (NodeState.UPDATED, counts.updated),
            (NodeState.TRIAL, counts.trial),
            (NodeState.PENDING, counts.pending),
            (NodeState.DEFERRED, counts.deferred),
            (NodeState.FAILED, counts.failed),
        ):
            self.nodes.labels(namespace, model, state.value).set(count)
        self.ready_nodes.labels(namespace, model).set(counts.ready)
        rollout = status.rollout
        under_way = rollout is not None and not rollout.completed_at
        self.wave.labels(namespace, model).set(rollout.wave + 1 if rollout and under_way else 0)
        self.quarantined.labels(namespace, model).set(len(status.quarantined))
        self.stalled.labels(namespace, model).set(_is_stalled(status))

    def forget(self, namespace: str, model: str) -> None:
        """Take the series of a deleted model away."""
        for state in NodeState:
            self._remove(self.nodes, namespace, model, state.value)
        for gauge in (self.ready_nodes, self.wave, self.quarantined, self.stalled):
            self._remove(gauge, namespace, model)

    @staticmethod
    def _remove(gauge: Gauge, *labels: str) -> None:
        try:
            gauge.remove(*labels)
        except KeyError:
            return


def _is_stalled(status: EdgeModelStatus) -> bool:
    return any(
        one.type == ConditionType.STALLED and one.status is ConditionStatus.TRUE for one in status.conditions
    )
