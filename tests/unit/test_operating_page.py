"""docs/operating.md names every reason that a status can show, and every metric of the operator."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.adapters.signer_protocol import KeyTroubleReason
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.api.conditions import ConditionType
from edgemodel_operator.api.edgemodel_status import NodeState
from edgemodel_operator.build.failures import Reason
from edgemodel_operator.signer.metrics import SignerMetrics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "operating.md").read_text()
CODE = ROOT / "operator/edgemodel_operator"
SCANNED = (
    *(CODE / "core" / f"{name}.py" for name in ("chain", "garbage", "late", "member", "placement", "plan")),
    *(CODE / "core" / f"{name}.py" for name in ("rollout", "status", "supply", "trial", "waves", "world")),
    *(path for path in (CODE / "reconcile").glob("*.py") if not path.stem.startswith("audit")),
    *(
        CODE / "adapters" / f"{name}.py"
        for name in ("attested", "image_remover", "image_signer", "pods", "policy_verifier")
    ),
    *(CODE / "adapters" / f"{name}.py" for name in ("registries", "remote_signer", "signed_images")),
    *(CODE / "build" / f"{name}.py" for name in ("placement", "supplier")),
)
OTHER_WORDS = frozenset(
    {
        # kinds of objects and events, values of their fields, headers
        *("Authorization", "ConfigMap", "DaemonSet", "NoExecute", "NoSchedule", "Normal", "Warning"),
        # members of enumerations that no status shows as a reason
        *("Begin", "Rollback", "Steady", "Waves", "Build", "Missing", "Prepare", "Running", "Sign", "Source"),
        *("Failed", "Deferred", "Trusted", "Unknown", "Untrusted"),
        # why a pod is not ready: shown as a sentence
        "NotReady",
    }
)
WORD = re.compile(r"([A-Z][a-z]+)+")
DOCUMENTED = frozenset(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE))


def words(path: Path) -> set[str]:
    """Give the words in CamelCase that are texts in a module."""
    constants = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    texts = {node.value for node in constants if isinstance(node.value, str)}
    return {text for text in texts if WORD.fullmatch(text)}


def collectors() -> Iterator[MetricWrapperBase]:
    """Give every metric of the operator."""
    metrics = Metrics()
    for owner in (metrics, metrics.audit):
        yield from (item for item in vars(owner).values() if isinstance(item, MetricWrapperBase))


def series(metric: MetricWrapperBase) -> str:
    """Write a metric as the page does: `name{label,label}`."""
    name = metric._name + ("_total" if metric._type == "counter" else "")
    labels = ",".join(metric._labelnames)
    return f"{name}{{{labels}}}" if labels else name


@pytest.mark.parametrize("path", SCANNED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_reason_of_a_module_is_on_the_page(path: Path) -> None:
    assert words(path) - OTHER_WORDS <= DOCUMENTED


def test_words_that_are_no_reasons_still_occur() -> None:
    assert frozenset().union(*map(words, SCANNED)) >= OTHER_WORDS


def test_every_condition_and_state_is_on_the_page() -> None:
    assert set(ConditionType) | set(NodeState) | set(KeyTroubleReason) <= DOCUMENTED


def test_reasons_of_builds_are_on_the_pages_that_it_names() -> None:
    pages = {name for name in re.findall(r"\]\(([a-z-]+\.md)", PAGE) if "build" in name or "conv" in name}
    text = "".join((DOCS / name).read_text() for name in sorted(pages | {"dockerfiles.md"}))
    assert {reason.value for reason in Reason} <= frozenset(re.findall(r"`([A-Z][A-Za-z]+)`", text))


def test_every_metric_is_on_the_page_with_its_labels() -> None:
    found = {series(metric) for metric in collectors()}
    assert len(found) > 10
    assert {name for name in found if f"`{name}`" not in PAGE} == set()


def test_alerts_are_rules_about_metrics_that_exist() -> None:
    block = PAGE.partition("## Alerts")[2].partition("```yaml\n")[2].partition("```")[0]
    (group,) = yaml.safe_load(block)["groups"]
    known = {
        sample.name
        for registry in (Metrics().registry, SignerMetrics().registry, AdmissionMetrics().registry)
        for family in registry.collect()
        for sample in family.samples
    } | {metric._name for metric in collectors()}
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        assert set(re.findall(r"\bedgemodel_[a-z_]+\b", rule["expr"])) - {"edgemodel_"} <= known
