"""The admission program beside a real API server: the chart's objects, real images, replicas one can kill.

A replica runs as its pod would: with the rendered configuration, its own account and rights, and its place
behind the Service. It runs in the network of the control plane, so that no image of the product is needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cluster.base import Cluster
from cluster.commands import run
from cluster.images import write_archive
from cluster.namespaces import CONTROL_PLANE, NetworkThreads, inside
from cluster.places import API_PORT, CONTROL_PLANE_ADDRESS
from cluster.tools import tool
from edgemodel_operator.admission.main import VERDICTS_SECRET
from edgemodel_operator.api.names import API_VERSION
from edgemodel_operator.oci.descriptor import sha256_digest
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.signing.keys import LocalKey, generate_key_pair, load_private_key
from edgemodel_operator.signing.sign import sign_image
from support.guarded import (
    LABEL,
    NAME,
    SYSTEM,
    Json,
    account_kubeconfig,
    applied,
    as_list,
    guard_objects,
    namespace,
    pod,
    until_admitted,
    until_refused,
)

HTTPS_PORT, METRICS_PORT = 28443, 28080
"""Of the first replica; each further one has the next."""
NAMESPACES = "guarded-*"
PASSWORD = b"a password"
_APPLIED = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
_JUDGES = (
    *("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
)
_T = TypeVar("_T")


@dataclass
class Replica:
    """One running program."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End it as a power cut does; it may be dead already."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class AdmissionSite:
    """A cluster in which `NAMESPACES` are guarded, an image that is signed, and one that is not."""

    cluster: Cluster
    folder: Path
    key: LocalKey
    signed: str
    unsigned: str
    objects: dict[tuple[str, str], Json]
    replicas: list[Replica] = field(default_factory=list)

    def start(self, number: int) -> Replica:
        """Start a replica; `wait_until_it_answers` tells when it does."""
        config = yaml.safe_load(self.objects["ConfigMap", "edgemodel-config"]["data"]["config.yaml"])
        config["admission"]["port"], config["metricsPort"] = HTTPS_PORT + number, METRICS_PORT + number
        config["registries"]["plainHttp"] = [self.cluster.registry]
        path = self.folder / f"config-{number}.yaml"
        path.write_text(yaml.safe_dump(config))
        server = f"https://{CONTROL_PLANE_ADDRESS}:{API_PORT}"
        environment = {
            **os.environ,
            "KUBECONFIG": str(account_kubeconfig(self.cluster, NAME, self.folder, server)),
            "EDGEMODEL_CONFIG": str(path),
            "POD_NAMESPACE": SYSTEM,
            "POD_NAME": f"{NAME}-{number}",
        }
        log = self.folder / f"replica-{number}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                inside(CONTROL_PLANE, [sys.executable, "-m", "edgemodel_operator", "admission"]),
                env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        replica = Replica(number, process, log)
        self.replicas.append(replica)
        return replica

    def wait_until_it_answers(self, replica: Replica, seconds: float = 60) -> None:
        """Wait for readiness, asked for as the kubelet does."""
        url = f"http://{CONTROL_PLANE_ADDRESS}:{METRICS_PORT + replica.number}/readyz"
        ends = time.monotonic() + seconds
        while True:
            if replica.process.poll() is not None:
                raise AssertionError(f"the replica ended:\n{replica.log.read_text()[-3000:]}")
            asked = in_plant(self.cluster, ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url])
            if asked == "200":
                return
            if time.monotonic() > ends:
                raise AssertionError(f"not ready ({asked}):\n{replica.log.read_text()[-3000:]}")
            time.sleep(0.1)

    def kill_all(self) -> None:
        """Kill every replica at once."""
        for replica in self.replicas:
            replica.kill()
        self.replicas.clear()

    def revive(self) -> None:
        """Have both replicas running and answering, whatever was done to them."""
        alive = {replica.number for replica in self.replicas if replica.process.poll() is None}
        self.replicas = [replica for replica in self.replicas if replica.number in alive]
        started = [self.start(number) for number in (0, 1) if number not in alive]
        for replica in started:
            self.wait_until_it_answers(replica)

    def logs(self) -> str:
        """Give what all replicas wrote."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("replica-*.log")))


def in_plant(cluster: Cluster, argv: Sequence[str]) -> str:
    """Run a program in the network of the plant whose failure is an answer, and give what it printed."""
    done = subprocess.run(
        inside(CONTROL_PLANE, list(argv)), capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout


def run_in_plant(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine whose connections belong to the network of the plant."""
    threads = NetworkThreads(CONTROL_PLANE, size=1)
    try:
        return threads.pool().submit(asyncio.run, work).result()
    finally:
        threads.close()


def push_image(cluster: Cluster, folder: Path, repository: str, tag: str = "1") -> str:
    """Push a small image that runs, and give it by digest."""
    name = f"{cluster.registry}/{repository}"
    programs = {architecture: tool(f"testimage-{architecture}/echo") for architecture in ("amd64", "arm64")}
    archive = write_archive(folder / "echo.tar", f"{name}:{tag}", programs)
    target = f"docker://{cluster.registry_on_host}/{repository}:{tag}"
    run(["skopeo", "copy", "--quiet", "--all", "--dest-tls-verify=false", f"oci-archive:{archive}", target])
    index = run(["skopeo", "inspect", "--raw", "--tls-verify=false", target])
    return f"{name}@{sha256_digest(index.encode())}"


def sign(cluster: Cluster, image: str, *keys: LocalKey) -> None:
    """Sign an image of the cluster's registry under the name by which nodes know it."""

    async def work() -> None:
        name, _, digest = image.partition("@")
        host, _, repository = name.partition("/")
        async with new_session() as session:
            client = RegistryClient(session, plain_http={host})
            await sign_image(client, Reference(host, repository, digest=digest), keys)

    run_in_plant(work())


def trust_policy(name: str, image: str, key: LocalKey, **spec: Any) -> Json:
    """Give the policy that trusts one key for some images, in the namespaces of these tests alone."""
    keys = [{"data": key.public_key.pem.decode()}]
    return {
        "apiVersion": API_VERSION,
        "kind": "TrustPolicy",
        "metadata": {"name": name, "labels": LABEL},
        "spec": {
            "images": [image],
            "namespaces": [NAMESPACES],
            "authorities": [{"name": "plant", "keys": keys}],
            **spec,
        },
    }


@contextmanager
def admission_site(cluster: Cluster, folder: Path, probe: str) -> Iterator[AdmissionSite]:
    """Guard namespaces by two replicas as long as the block lasts; `probe` is one of the namespaces."""
    key = load_private_key(generate_key_pair(PASSWORD).private_pem, PASSWORD)
    signed = push_image(cluster, folder, "guard/signed")
    unsigned = push_image(cluster, folder, "guard/unsigned")
    sign(cluster, signed, key)
    objects = guard_objects()
    site = AdmissionSite(cluster, folder, key, signed, unsigned, objects)
    _serve_definitions(cluster, objects)
    with ExitStack() as stack:
        stack.enter_context(namespace(cluster, SYSTEM))
        stack.enter_context(applied(cluster, *_backing(objects)))
        policy = trust_policy("guard-under-test", f"{cluster.registry}/guard/**", key)
        stack.enter_context(applied(cluster, policy))
        # From here on pods are refused until a replica answers, so this goes first at the end, too.
        stack.enter_context(namespace(cluster, probe, LABEL))
        stack.enter_context(applied(cluster, *_judges(objects)))
        stack.callback(site.kill_all)
        site.revive()
        until_admitted(cluster, pod(probe, "probe", signed))
        until_refused(cluster, pod(probe, "probe", unsigned), "is not signed")
        yield site


def _serve_definitions(cluster: Cluster, objects: dict[tuple[str, str], Json]) -> None:
    """Bring our kinds up to date; they stay, and belong to the release that may be installed later."""
    release = {"meta.helm.sh/release-name": "edgemodel", "meta.helm.sh/release-namespace": "edgemodel-system"}
    kinds = [document for (kind, _), document in objects.items() if kind == "CustomResourceDefinition"]
    for document in kinds:
        document["metadata"].setdefault("annotations", {}).update(release)
        document["metadata"].setdefault("labels", {})["app.kubernetes.io/managed-by"] = "Helm"
    cluster.kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=helm",
        "-f",
        "-",
        stdin=as_list(*kinds),
    )
    names = [f"crd/{document['metadata']['name']}" for document in kinds]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)


def _backing(objects: dict[tuple[str, str], Json]) -> list[Json]:
    """Give the account, its rights, its Secrets, and a Service that leads to the replicas."""
    secrets = [("Secret", f"{NAME}-tls"), ("Secret", VERDICTS_SECRET)]
    ours = [one for (kind, name), one in objects.items() if kind in _APPLIED and name == NAME]
    ours += [one for (kind, name), one in objects.items() if (kind, name) in secrets]
    service = json.loads(json.dumps(objects["Service", NAME]))
    del service["spec"]["selector"]
    return [*ours, service, *(_endpoint(number) for number in (0, 1))]


def _endpoint(number: int) -> Json:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{NAME}-{number}",
            "namespace": SYSTEM,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [CONTROL_PLANE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": HTTPS_PORT + number}],
    }


def _judges(objects: dict[tuple[str, str], Json]) -> list[Json]:
    """Give the webhooks and policies; of all trust objects they look at those of these tests alone."""
    found = [one for (kind, name), one in objects.items() if kind in _JUDGES and name.startswith(NAME)]
    for document in found:
        for webhook in document.get("webhooks", ()):
            if webhook["name"].startswith("trust."):
                webhook["objectSelector"] = {"matchLabels": LABEL}
    return found
