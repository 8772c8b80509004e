"""The story of the demo, step by step; each step checks what it claims and says what it measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cluster.commands import CommandFailed
from demo import objects
from demo.models import ModelFile, make_fresh_version, make_versions
from demo.pictures import Picture, draw_pictures, golden_sample, json_request, orientation_of
from demo.report import Report, claim
from demo.site import PUBLIC_KEY, SYSTEM, Site, condition, is_true
from demo.traffic import Ask, Tally, Traffic
from demo.unsigned import push_unsigned_copy

Json = dict[str, Any]
LARGEST_GAP_SECONDS = 10.0
TOLERANCE = 1e-2
STEPS = 10


class Story:
    """One run of the demo on one site."""

    def __init__(self, site: Site, report: Report, folder: Path) -> None:
        self.site = site
        self.report = report
        self.cluster = site.cluster
        self.pictures: tuple[Picture, ...] = draw_pictures()
        self.versions: dict[str, ModelFile] = make_versions(folder)
        self.url = self.cluster.serve_files(folder)
        self._folder = folder
        self.service: Json = {}
        self.exclusive: str = ""
        self.probation = 5

    def prepare(self) -> None:
        """Install the product; add the accelerator, the policy, the namespace and the golden sample."""
        with self.report.step("install the chart; make a signing key; say whom to trust") as lines:
            self.site.install()
            self._forget_earlier_run()
            golden = golden_sample(self.versions["1"].path, self.pictures[:2])
            self.site.apply(
                objects.namespace(),
                objects.npu_class(),
                objects.trust_policy(self.cluster.registry, PUBLIC_KEY),
                objects.golden_config_map(golden),
            )
            lines.append(f"chart installed in {SYSTEM} with nothing else in the cluster")

    def first_version(self) -> None:
        """Apply version 1: built, signed, verified, placed, rolled out, answering."""
        with self.report.step("apply version 1") as lines:
            begun = time.monotonic()
            self.apply("1")
            status = self._wait("all nodes run version 1", _is_ready("1"), timeout_s=300)
            lines.append(f"apply → ready on every node: {time.monotonic() - begun:.1f} s")
            for image in status["images"]:
                lines.append(f"image {image['image']}")
                lines.append(f"      {', '.join(image['platforms'])}, build key {image['buildKey'][:12]}")
                claim(
                    {"linux/amd64", "linux/arm64"} <= set(image["platforms"]),
                    f"the image holds {image['platforms']}",
                )
            for kind in ("Signed", "Trusted"):
                claim(is_true(status, kind), f"{kind} is {condition(status, kind)}")
                lines.append(f"{kind}: {condition(status, kind)['message']}")
            self.service = self.site.get("service", objects.NAME, objects.NAMESPACE)
            self.exclusive = self._exclusive_node()

    def answers(self) -> None:
        """Ask every node, and compare the answers."""
        with self.report.step("ask every node through the Service") as lines:
            scores: list[list[float]] = []
            for node in self.cluster.nodes():
                begun = time.monotonic()
                status, answer = self._ask(node, json_request(self.pictures[:1]), {})
                took = time.monotonic() - begun
                claim(status == 200, f"{node} answered HTTP {status}: {answer[:300]!r}")
                orientation, score = orientation_of(answer)
                claim(orientation == self.pictures[0].orientation, f"{node} answered wrongly: {score}")
                scores.append(score)
                lines.append(f"{self._describe(node)}: {score} in {took * 1000:.0f} ms")
            spread = max(abs(a - b) for row in scores for a, b in zip(row, scores[0], strict=True))
            claim(spread <= TOLERANCE, f"the answers differ by {spread}")
            lines.append(f"largest difference between nodes: {spread:.2e} (tolerance {TOLERANCE:g})")

    def second_version(self) -> None:
        """Roll out version 2 under steady requests."""
        with self.report.step("apply version 2 under steady requests on all nodes") as lines:
            with self._traffic() as traffic:
                begun = time.monotonic()
                self.apply("2")
                self._wait("all nodes run version 2", _is_ready("2"), timeout_s=300)
                lines.append(f"rolled out in waves in {time.monotonic() - begun:.1f} s")
                traffic.settle(LARGEST_GAP_SECONDS)
            for node, tally in traffic.tallies.items():
                lines.append(f"{node}: {_said(tally)}")
                claim(tally.wrong == 0, f"{node}: {tally.wrong} wrong answers")
                claim(tally.sent > 0, f"{node}: nothing was asked")
                if node == self.exclusive:
                    lines.append(
                        f"      exclusive device: gap of {tally.longest_gap:.1f} s, old out to new in"
                    )
                    claim(
                        not tally.failing and 0 < tally.longest_gap <= LARGEST_GAP_SECONDS,
                        f"gap of {tally.longest_gap:.1f} s on {node}, last failure: {tally.last_failure}",
                    )
                else:
                    claim(tally.failed == 0, f"{node}: {tally.failed} failed: {tally.last_failure}")

    def bad_version(self) -> None:
        """Roll out damaged weights: stopped in the first wave, rolled back, nobody notices."""
        with self.report.step("apply version 3: damaged weights, loads and answers wrong") as lines:
            good = self._status()["lastKnownGood"]
            with self._traffic() as traffic:
                begun = time.monotonic()
                self.apply("3")
                status = self._wait(
                    "version 3 is rolled back",
                    lambda seen: (
                        any(item["revision"] == seen["targetRevision"] for item in seen["quarantined"])
                        and seen["version"] == "2"
                        and seen["currentRevision"] == good
                        and seen["nodes"]["updated"] == seen["nodes"]["total"]
                    ),
                )
                lines.append(f"stopped and rolled back in {time.monotonic() - begun:.1f} s")
            quarantine = status["quarantined"][0]
            claim(quarantine["reason"] == "GoldenMismatch", f"quarantined for {quarantine['reason']}")
            claim(condition(status, "Stalled").get("status") == "True", "Stalled is not True")
            claim(is_true(status, "Available"), "Available is not True")
            lines.append(f"{quarantine['reason']} on {quarantine['message']}")
            lines.append(f"quarantined: {', '.join(quarantine['digests'])}")
            for node, tally in traffic.tallies.items():
                lines.append(f"{node}: {_said(tally)}")
                claim(
                    tally.failed == 0 and tally.wrong == 0 and tally.sent > 0,
                    f"{node}: {tally.failed} failed, {tally.wrong} wrong: {tally.last_failure}",
                )

    def offline_node(self) -> None:
        """Cut a node off, roll out version 4, bring it back."""
        name = self._node_to_cut()
        node = self.cluster.node(name)
        with self.report.step(f"cut {name} off and apply version 4") as lines:
            node.cut()
            try:
                self._wait_node(name, ready=False)
                begun = time.monotonic()
                self.apply("4")
                status = self._wait(
                    "version 4 runs everywhere but on the node that is away",
                    lambda seen: _is_ready("4")(seen) and seen["nodes"]["deferred"] == 1,
                )
                lines.append(
                    f"others updated in {time.monotonic() - begun:.1f} s; "
                    f"{condition(status, 'Ready')['reason']}: {condition(status, 'Ready')['message']}"
                )
                self._claim_answers(name)
                lines.append(f"{name} is deferred, not failed, and still answers on its own")
            finally:
                node.restore()
        with self.report.step(f"restore the link of {name}") as lines:
            begun = time.monotonic()
            self._wait(
                "the node has caught up",
                lambda seen: _is_ready("4")(seen) and seen["nodes"]["updated"] == seen["nodes"]["total"],
                timeout_s=300,
            )
            lines.append(f"converged in {time.monotonic() - begun:.1f} s")

    def unsigned_image(self) -> None:
        """Try to run an image that nobody signed."""
        with self.report.step("try to run an image that nobody signed") as lines:
            image = push_unsigned_copy(self.cluster, self._status()["images"][0]["image"])
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "unsigned", "namespace": objects.NAMESPACE},
                "spec": {"containers": [{"name": "model", "image": image}]},
            }
            try:
                self.site.apply(pod)
            except CommandFailed as error:
                refusal = str(error)
            else:
                refusal = ""
            claim(
                image in refusal and "models" in refusal, f"the pod was not refused as it should: {refusal!r}"
            )
            lines.append(f"refused: {refusal.strip().splitlines()[-1]}")

    def metrics(self) -> None:
        """Show what Prometheus sees."""
        with self.report.step("kubectl get em, and what Prometheus sees") as lines:
            table = self.cluster.kubectl("get", "em", "--namespace", objects.NAMESPACE)
            lines.extend(table.rstrip().splitlines())
            operator = self._scrape("app.kubernetes.io/component=operator")
            admission = self._scrape("app.kubernetes.io/component=admission")
            wanted = {
                'edgemodel_rollouts_total{result="completed"}': 3,
                'edgemodel_rollouts_total{result="rolled_back"}': 1,
                'edgemodel_nodes{model="line-orientation",namespace="plant-a",state="Updated"}': 3,
            }
            for name, least in wanted.items():
                value = operator.get(name)
                claim(value is not None and value >= least, f"{name} is {value}, expected {least}")
                lines.append(f"{name} {value:g}")
            denied = sum(
                value
                for name, value in admission.items()
                if name.startswith("edgemodel_admission_decisions_total") and "deny" in name
            )
            claim(denied >= 1, "the admission webhook counted no denial")
            lines.append(f'edgemodel_admission_decisions_total{{decision="deny"}} {denied:g}')
            served = self._served()
            claim(served > 0, "the servers counted no request")
            lines.append(f"edgemodel_server_inference_requests_total on all nodes {served:g}")

    def run(self) -> None:
        """Tell the whole story."""
        self.prepare()
        self.first_version()
        self.answers()
        self.second_version()
        self.bad_version()
        self.offline_node()
        self.unsigned_image()
        self.metrics()

    def _forget_earlier_run(self) -> None:
        """Delete what an earlier demo left on this cluster, so that this one tells its own story."""
        if not self.site.exists("edgemodel", objects.NAME, objects.NAMESPACE):
            return
        self.cluster.kubectl(
            "delete", "edgemodel", objects.NAME, "--namespace", objects.NAMESPACE, "--timeout", "60s",
            timeout_s=90,
        )  # fmt: skip

    # --- what tests do besides ------------------------------------------------------------------------

    def fresh_version(self) -> ModelFile:
        """Make a version that was never built before, and remember it."""
        model = make_fresh_version(self._folder, len(self.versions))
        self.versions[model.version] = model
        return model

    def apply(self, version: str, name: str = objects.NAME) -> None:
        """Apply the EdgeModel with one version."""
        model = self.versions[version]
        self.site.apply(
            objects.edge_model(model, self.url, self.cluster.registry, name, probation=self.probation)
        )

    def ensure(self, version: str) -> None:
        """Have a version ready on every node."""
        self.apply(version)
        self.wait_ready(version)

    def wait_ready(self, version: str) -> Json:
        """Wait until a version is ready on every node."""
        return self._wait(
            f"version {version} is ready on every node",
            lambda seen: _is_ready(version)(seen) and seen["nodes"]["updated"] == seen["nodes"]["total"],
            timeout_s=300,
        )

    def wait_rolled_back(self, version: str) -> Json:
        """Wait until the version that the spec asks for is in quarantine and another runs everywhere."""
        return self._wait(
            f"rolled back to version {version}",
            lambda seen: (
                any(item["revision"] == seen["targetRevision"] for item in seen["quarantined"])
                and seen["version"] == version
                and seen["nodes"]["updated"] == seen["nodes"]["total"]
                and seen["nodes"]["ready"] == seen["nodes"]["total"]
            ),
        )

    def wait_condition(self, kind: str, reason: str, timeout_s: float = 60) -> Json:
        """Wait until a condition gives a reason."""
        return self._wait(
            f"{kind} says {reason}", lambda seen: condition(seen, kind).get("reason") == reason, timeout_s
        )

    def pod_uids(self) -> set[str]:
        """Give the identities of the serving pods."""
        return {pod["metadata"]["uid"] for pod in self.pods()}

    # --- parts ---------------------------------------------------------------------------------------

    def _status(self) -> Json:
        status: Json = self.site.get("edgemodel", objects.NAME, objects.NAMESPACE)["status"]
        return status

    def _wait(self, what: str, holds: Callable[[Json], bool], timeout_s: float = 180) -> Json:
        model = self.site.wait_model(objects.NAME, objects.NAMESPACE, what, holds, timeout_s)
        status: Json = model["status"]
        return status

    def _wait_node(self, name: str, *, ready: bool) -> None:
        self.site.wait(
            f"node {name} is {'Ready' if ready else 'NotReady'}",
            lambda: self.site.get("node", name),
            lambda node: is_true(node["status"], "Ready") is ready,
        )

    def _ask(self, node: str, body: bytes, headers: dict[str, str], timeout: float = 20) -> tuple[int, bytes]:
        return self.site.ask(node, self.service, objects.NAME, body, headers, timeout)

    def _traffic(self) -> Traffic:
        # Where a gap is measured, a request that was sent into it must not wait longer than the gap.
        asks: dict[str, Ask] = {
            node: partial(self._ask, node, timeout=1 if node == self.exclusive else 20)
            for node in self.cluster.nodes()
        }
        return Traffic(asks, self.pictures)

    def _claim_answers(self, node: str) -> None:
        status, answer = self._ask(node, json_request(self.pictures[:1]), {})
        claim(status == 200, f"{node} answered HTTP {status}")
        claim(orientation_of(answer)[0] == self.pictures[0].orientation, f"{node} answered wrongly")

    def pods(self) -> list[Json]:
        """Give the serving pods of the model, without those that are going away."""
        pods: list[Json] = self.cluster.kubectl_json(
            "get", "pods", "--namespace", objects.NAMESPACE, "--selector",
            f"edgemodel.dev/role=serve,app.kubernetes.io/name={objects.NAME}",
        )["items"]  # fmt: skip
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def _describe(self, node: str) -> str:
        pod = next(pod for pod in self.pods() if pod["spec"]["nodeName"] == node)
        architecture = self.site.get("node", node)["status"]["nodeInfo"]["architecture"]
        port = self.service["spec"]["ports"][0]["port"]
        health = json.loads(
            self.cluster.node(node).get(f"http://{pod['status']['podIP']}:{port}/v2/health/ready")[1]
        )
        target = pod["metadata"]["labels"]["edgemodel.dev/target"]
        return f"{node} ({architecture}, {target}, {health['provider']})"

    def _exclusive_node(self) -> str:
        """Find the node whose pod holds the accelerator, and check that it really does."""
        holders = [
            pod["spec"]["nodeName"]
            for pod in self.pods()
            if pod["spec"]["containers"][0]["resources"].get("limits", {}).get("example.com/npu") == "1"
        ]
        claim(len(holders) == 1, f"example.com/npu is held on {holders}, expected on one node")
        return str(holders[0])

    def _node_to_cut(self) -> str:
        """Choose a node on which neither the operator nor a webhook pod would be missed most."""
        busy = {
            pod["spec"]["nodeName"]
            for pod in self.cluster.kubectl_json("get", "pods", "--namespace", SYSTEM)["items"]
        }
        idle = [name for name in self.cluster.nodes() if name not in busy]
        return idle[-1] if idle else self.cluster.nodes()[-1]

    def _scrape(self, selector: str) -> dict[str, float]:
        """Add up the metrics of all pods of a component."""
        pods = self.cluster.kubectl_json("get", "pods", "--namespace", SYSTEM, "--selector", selector)
        total: dict[str, float] = {}
        for pod in pods["items"]:
            for name, value in self._metrics_of(pod, 8080).items():
                total[name] = total.get(name, 0) + value
        return total

    def _served(self) -> float:
        port = self.service["spec"]["ports"][0]["port"]
        return sum(
            value
            for pod in self.pods()
            for name, value in self._metrics_of(pod, port).items()
            if name.startswith("edgemodel_server_inference_requests_total")
        )

    def _metrics_of(self, pod: Json, port: int) -> dict[str, float]:
        node = self.cluster.node(pod["spec"]["nodeName"])
        _, text = node.get(f"http://{pod['status']['podIP']}:{port}/metrics")
        return parse_metrics(text.decode())


def parse_metrics(text: str) -> dict[str, float]:
    """Read samples of the Prometheus text format by their whole name with labels."""
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    return samples


def _is_ready(version: str) -> Callable[[Json], bool]:
    return lambda status: is_true(status, "Ready") and status.get("version") == version


def _said(tally: Tally) -> str:
    return f"{tally.sent} requests, {tally.failed} failed, {tally.wrong} wrong"
