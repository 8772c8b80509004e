"""What users and their servers get wrong, with the operator in its own pod: all of it is applied at once."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from cluster.base import Cluster
from demo import objects
from demo.site import Site, condition, is_true, service_url
from demo.story import Story
from support.bench import NAMESPACE, Bench, accelerator, right_to_read
from support.misbehaving import NO_MODEL, Misbehaving, RefusingRegistry, Seen

pytestmark = pytest.mark.needs("pods", "registry", "cut")

Json = dict[str, Any]
REFUSING_PORT = 5403
STEADY = "steady"
LATE_CLASS = "late-npu"
UNSUPPORTED_CLASS = "unsupported-npu"
FORBIDDEN_SECRET = "not-for-the-operator"
ABSENT_SECRET = "absent"
NOTHING_PUSHED = frozenset({"SourceResolved", "Built"})
"""Conditions whose failure means that the repository holds no tag."""


@dataclass(frozen=True)
class Case:
    """One mistake: what is changed in a good spec, and what the operator says to that."""

    change: Json
    link: str
    reason: str
    says: tuple[str, ...]
    person: bool
    """Whether a person must act."""


def source(path: str, sha256: str = "0" * 64) -> Json:
    """Change the source to a path of the server that misbehaves."""
    return {"path": path, "sha256": sha256}


CASES = {
    "missing": Case(
        source("/missing.onnx"), "SourceResolved", "SourceNotFound", ("/missing.onnx", "404"), person=False
    ),
    "silent": Case(
        source("/silent.onnx"), "SourceResolved", "SourceTimeout", ("/silent.onnx", "second"), person=False
    ),
    "metadata": Case(
        source("/to-metadata.onnx"),
        "SourceResolved",
        "SourceForbiddenAddress",
        ("169.254.169.254",),
        person=True,
    ),
    "loopback": Case(
        source("/to-loopback.onnx"), "SourceResolved", "SourceForbiddenAddress", ("127.0.0.1",), person=True
    ),
    "announced": Case(
        source("/announced.onnx"), "SourceResolved", "SourceTooLarge", ("67108864",), person=True
    ),
    "endless": Case(source("/endless.onnx"), "SourceResolved", "SourceTooLarge", ("67108864",), person=True),
    "mismatch": Case(
        source("/text.onnx"), "SourceResolved", "SourceDigestMismatch", ("0" * 64, "sha256"), person=True
    ),
    "no-model": Case(
        source("/text.onnx", hashlib.sha256(NO_MODEL).hexdigest()),
        "SourceResolved",
        "InvalidModel",
        ("ONNX",),
        person=True,
    ),
    "registry-down": Case(
        {"repository": "10.199.0.1:9/models/registry-down"},
        "Built",
        "RegistryUnavailable",
        ("10.199.0.1:9",),
        person=False,
    ),
    "push-refused": Case(
        {"repository": f"10.199.0.1:{REFUSING_PORT}/models/push-refused"},
        "Built",
        "RegistryDenied",
        (f"10.199.0.1:{REFUSING_PORT}/models/push-refused", "image.pushSecret", f":{REFUSING_PORT}/v2/"),
        person=True,
    ),
    "no-secret": Case(
        {"pullSecrets": [{"name": ABSENT_SECRET}]},
        "SourceResolved",
        "SecretNotFound",
        (f"Secret {NAMESPACE}/{ABSENT_SECRET} does not exist", "kubectl create secret docker-registry"),
        person=True,
    ),
    "secret-forbidden": Case(
        {"pullSecrets": [{"name": FORBIDDEN_SECRET}]},
        "SourceResolved",
        "SecretNotReadable",
        (NAMESPACE, FORBIDDEN_SECRET, "modelNamespaces"),
        person=True,
    ),
    "no-golden": Case(
        {"golden": "absent"},
        "SourceResolved",
        "GoldenSampleNotFound",
        (f"ConfigMap {NAMESPACE}/absent", "create it"),
        person=True,
    ),
    "bad-golden": Case(
        {"golden": "not-json"},
        "SourceResolved",
        "GoldenSampleInvalid",
        (f"ConfigMap {NAMESPACE}/not-json", "not JSON"),
        person=True,
    ),
    "no-class": Case(
        {"accelerator": LATE_CLASS},
        "SourceResolved",
        "AcceleratorClassNotFound",
        (f"AcceleratorClass {LATE_CLASS} does not exist", "cpu"),
        person=True,
    ),
    "no-variant": Case(
        {"accelerator": UNSUPPORTED_CLASS},
        "SourceResolved",
        "RuntimeNotConfigured",
        ("variant made-up", "runtimes"),
        person=True,
    ),
    "no-policy": Case(
        {"repository": "{registry}/unwatched/no-policy"},
        "Trusted",
        "NoTrustPolicy",
        ("/unwatched/no-policy", "no TrustPolicy matches", "spec.images"),
        person=True,
    ),
    "no-node": Case(
        {"node": "nowhere"}, "Placed", "NoNodeMatches", ("placement.nodeSelector",), person=False
    ),
}


@pytest.fixture(scope="module")
def bench(story: Story, site: Site) -> Iterator[Bench]:
    """Set the servers up and prepare the namespace."""
    cluster = site.cluster
    seen = Seen()
    bad = cluster.serve_http(partial(Misbehaving, seen))
    cluster.serve_http(RefusingRegistry, REFUSING_PORT)
    site.apply(objects.namespace(NAMESPACE))
    _forget(cluster)
    site.apply(
        objects.golden_config_map("{", "not-json", NAMESPACE),
        accelerator(UNSUPPORTED_CLASS, "made-up", {"nowhere": "true"}),
        *right_to_read(ABSENT_SECRET),
    )
    bench = Bench(site, story.versions["1"], story.url, bad, seen, cluster.nodes()[0], secrets.token_hex(4))
    yield replace(bench, first_operator=bench.operator())
    seen.closing.set()
    _forget(cluster)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _forget(cluster: Cluster) -> None:
    """Delete what an earlier run may have left, cluster-wide things above all."""
    classes = (f"acceleratorclass/{LATE_CLASS}", f"acceleratorclass/{UNSUPPORTED_CLASS}")
    cluster.kubectl("delete", "--ignore-not-found", *classes)
    cluster.kubectl("delete", "edgemodels", "--all", "--namespace", NAMESPACE, "--timeout", "60s")


@pytest.fixture(scope="module")
def applied(bench: Bench) -> Bench:
    """Make all mistakes at once."""
    bench.site.apply(*(bench.edge_model(name, case.change) for name, case in CASES.items()))
    return bench


# --- the claims --------------------------------------------------------------------------------------------


def wait_for(bench: Bench, name: str) -> Json:
    """Wait until the mistake of a case is named; give the whole object."""
    return bench.wait(name, CASES[name].link, CASES[name].reason)


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_named_where_it_was_made(applied: Bench, name: str) -> None:
    case = CASES[name]

    model = wait_for(applied, name)

    status, generation = model["status"], model["metadata"]["generation"]
    found = condition(status, case.link)
    assert found["status"] == "False"
    for words in case.says:
        assert words in found["message"]
    assert not is_true(status, "Ready")
    assert condition(status, "Ready")["reason"] == case.reason
    assert is_true(status, "Stalled") is case.person
    assert {item["observedGeneration"] for item in status["conditions"]} == {generation}
    assert not applied.pods(name)


def test_what_was_not_looked_at_is_not_called_good(applied: Bench) -> None:
    unreachable = wait_for(applied, "registry-down")["status"]
    assert condition(unreachable, "SourceResolved")["status"] == "Unknown"

    refused = wait_for(applied, "push-refused")["status"]
    assert is_true(refused, "SourceResolved")


def test_a_failed_build_leaves_nothing_that_can_be_pulled(applied: Bench) -> None:
    for name, case in CASES.items():
        wait_for(applied, name)
        if case.link in NOTHING_PUSHED:
            assert applied.tags(name) == [], name


def test_a_running_model_is_not_touched_by_mistakes(bench: Bench, story: Story) -> None:
    bench.site.apply(bench.edge_model(STEADY, {}))
    before = bench.wait_ready(STEADY, "1")["status"]
    pods = {pod["metadata"]["uid"] for pod in bench.pods(STEADY)}
    assert len(pods) == 1

    for mistake in ("missing", "mismatch", "no-secret", "secret-forbidden", "no-golden", "no-variant"):
        case = CASES[mistake]
        bench.site.apply(bench.edge_model(STEADY, case.change))
        # A model whose image is there meets some of the mistakes at a later link.
        status = bench.wait(STEADY, "Ready", case.reason)["status"]
        assert is_true(status, "Stalled") is case.person, mistake
        assert is_true(status, "Available"), mistake
        assert status["currentRevision"] == before["currentRevision"], mistake
        assert {pod["metadata"]["uid"] for pod in bench.pods(STEADY)} == pods, mistake
        assert _answers(bench, STEADY), mistake

    bench.site.apply(bench.edge_model(STEADY, {}))
    assert bench.wait_ready(STEADY, "1")["status"]["currentRevision"] == before["currentRevision"]
    assert {pod["metadata"]["uid"] for pod in bench.pods(STEADY)} == pods

    bench.site.apply(bench.edge_model(STEADY, {}, story.versions["2"]))
    assert bench.wait_ready(STEADY, "2")["status"]["currentRevision"] != before["currentRevision"]


def _answers(bench: Bench, name: str) -> bool:
    url = f"{service_url(bench.site.get('service', name, NAMESPACE))}/v2/health/ready"
    status, body = bench.cluster.node(bench.node).get(url)
    return status == 200 and json.loads(body)["ready"] is True


def test_a_mistake_costs_one_event_however_often_it_is_tried_again(applied: Bench) -> None:
    applied.site.wait(
        "what may mend itself is tried again twice, what a person must mend once",
        lambda: dict(applied.seen.paths),
        lambda paths: paths.get("/missing.onnx", 0) >= 3 and paths.get("/announced.onnx", 0) >= 2,
        90,
    )

    for name, case in CASES.items():
        counted = applied.events(wait_for(applied, name))
        assert counted["Warning", case.reason] >= 1, name
        # An operator that was killed from outside in the meantime tells its story again.
        allowed = 1 + applied.operator_starts()
        assert {event: count for event, count in counted.items() if count > allowed} == {}, name


def test_a_class_that_is_created_later_gets_the_model_going(applied: Bench) -> None:
    wait_for(applied, "no-class")

    labels = {"kubernetes.io/hostname": applied.node}
    applied.site.apply(accelerator(LATE_CLASS, "onnxruntime-cpu", labels))

    status = applied.wait_ready("no-class", "1")["status"]
    assert not is_true(status, "Stalled")
    assert status["nodes"]["summary"] == "1/1"


def test_deletion_leaves_nothing_behind(applied: Bench) -> None:
    applied.cluster.kubectl(
        "delete", "edgemodels", "--all", "--namespace", NAMESPACE, "--timeout", "60s", timeout_s=70
    )

    applied.site.wait(
        "nothing is left",
        lambda: {"left": applied.leftovers(*CASES, STEADY)},
        lambda seen: not seen["left"],
        60,
    )


def test_the_operator_did_not_fall_over(applied: Bench) -> None:
    container = applied.operator()["status"]["containerStatuses"][0]
    # What ended it before this module began, a power cut for one, is not the doing of bad input.
    ended = container["lastState"].get("terminated") if applied.operator_starts() else None
    killed_from_outside = {"exitCode": 137, "reason": "Error"}
    assert container["ready"]
    assert ended is None or {key: ended[key] for key in killed_from_outside} == killed_from_outside
