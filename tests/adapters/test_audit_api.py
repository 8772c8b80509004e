"""The audit on a real cluster: real pods on a real node, with the rights that the chart gives."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.base import Cluster
from cluster.images import write_archive
from cluster.node_files import static_pods
from cluster.places import NODES
from cluster.tools import tool
from edgemodel_operator.signing.keys import LocalKey
from support.admission_site import push_image, sign
from support.audit_site import NAME, AuditSite, audit_site

pytestmark = [pytest.mark.needs("api", "control", "nodes", "pods", "images", "registry")]
NODE = "edge-a"


@pytest.fixture(scope="module")
def site(edge_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditSite]:
    with audit_site(edge_cluster, tmp_path_factory.mktemp("audit")) as found:
        yield found


@pytest.fixture
def namespace(site: AuditSite) -> Iterator[str]:
    name = f"audited-{secrets.token_hex(4)}"
    site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    site.cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    yield name
    site.cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def repository() -> str:
    """Give each test a repository of its own: nodes know the same content by the name they met first."""
    return f"audit/{secrets.token_hex(4)}"


def new_key() -> LocalKey:
    return LocalKey(ec.generate_private_key(ec.SECP256R1()))


def own_program(folder: Path) -> Path:
    """Give a program whose bytes nobody else has: a node must not know the image by another name."""
    program = folder / "echo"
    shutil.copy(tool("testimage-amd64/echo"), program)
    with program.open("ab") as file:
        file.write(secrets.token_bytes(16))
    return program


def conditions(site: AuditSite) -> dict[str, str]:
    return {one["type"]: one["status"] for one in site.status()["conditions"]}


def writes_nothing(site: AuditSite) -> bool:
    def version() -> str:
        return str(site.cluster.kubectl_json("get", "trustpolicy", NAME)["metadata"]["resourceVersion"])

    before = version()
    site.audit()
    return version() == before


def test_case_36_a_pod_from_before_the_policy_is_reported_until_somebody_vouches_for_it(
    site: AuditSite, namespace: str, repository: str, tmp_path: Path
) -> None:
    key = new_key()
    image = push_image(site.cluster, tmp_path, repository)
    site.run_pod(namespace, "from-before", image)
    site.trust(repository, key)
    site.audit_until({("from-before", "Unsigned")})
    (finding,) = site.status()["findings"]
    assert (finding["namespace"], finding["node"], finding["image"]) == (namespace, NODE, image)
    assert conditions(site) == {"Ready": "True", "Satisfied": "False"}
    assert site.status()["untrusted"] == 1
    assert site.events() == [("Warning", "Unsigned")]
    site.until(lambda: writes_nothing(site), "an audit that has nothing to write")
    sign(site.cluster, image, key)
    site.audit_until(set())
    assert ("Normal", "Resolved") in site.events()
    assert site.runs(namespace, "from-before")


def test_case_43a_an_image_imported_by_hand_is_reported(
    site: AuditSite, namespace: str, repository: str, tmp_path: Path
) -> None:
    """`ctr images import` under a name that the policy trusts, and `IfNotPresent`: no registry is asked."""
    key = new_key()
    name = f"{site.cluster.registry}/{repository}:1"
    tar = write_archive(tmp_path / "image.tar", name, {"amd64": own_program(tmp_path)})
    site.cluster.load_image(tar, [NODE])
    site.run_pod(namespace, "by-hand", name)
    site.trust(repository, key)
    site.audit_until({("by-hand", "NotFromRegistry")})
    assert site.status()["findings"][0]["running"].startswith("sha256:")


def test_case_43b_a_static_pod_is_reported(
    site: AuditSite, namespace: str, repository: str, tmp_path: Path
) -> None:
    image = push_image(site.cluster, tmp_path, repository)
    site.trust(repository, new_key())
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "by-file", "namespace": namespace},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": image}]},
    }
    node = next(plan for plan in NODES if plan.name == NODE)
    file = static_pods(node) / f"{namespace}.json"
    file.write_text(json.dumps(pod))
    try:
        site.until_runs(namespace, f"by-file-{NODE}")
        site.audit_until({(f"by-file-{NODE}", "StaticPod")})
        assert "is not signed" in site.status()["findings"][0]["message"]
    finally:
        file.unlink()


def test_case_67_the_pods_of_a_key_that_was_removed_run_on_and_are_listed(
    site: AuditSite, namespace: str, repository: str, tmp_path: Path
) -> None:
    old, new = new_key(), new_key()
    before = push_image(site.cluster, tmp_path, f"{repository}/before")
    during = push_image(site.cluster, tmp_path, f"{repository}/during")
    sign(site.cluster, before, old)
    sign(site.cluster, during, old, new)
    for name, image in (("before", before), ("during", during)):
        site.run_pod(namespace, name, image)
    site.trust(f"{repository}/*", old, new)
    site.audit_until(set())
    assert site.status()["checked"] == 2
    site.trust(f"{repository}/*", new)
    site.audit_until({("before", "UnknownKey")})
    assert site.status()["findings"][0]["image"] == before
    assert site.runs(namespace, "before")


def test_images_that_no_policy_covers_are_counted_in_guarded_namespaces(
    site: AuditSite, namespace: str, repository: str, tmp_path: Path
) -> None:
    site.trust("audit/elsewhere", new_key())
    site.run_pod(namespace, "uncovered", push_image(site.cluster, tmp_path, repository))
    site.audit(guarded=namespace)
    uncovered = {"policy": "", "reason": "NoTrustPolicy"}
    assert site.metrics.get_sample_value("edgemodel_untrusted_containers", uncovered) == 1


def test_an_image_volume_is_looked_at(
    site: AuditSite, namespace: str, repository: str, tmp_path: Path
) -> None:
    key = new_key()
    trusted = push_image(site.cluster, tmp_path, f"{repository}/main")
    data = push_image(site.cluster, tmp_path, f"{repository}/data")
    sign(site.cluster, trusted, key)
    site.trust(f"{repository}/*", key)
    site.run_pod(namespace, "reader", trusted, volumes=[{"name": "data", "image": {"reference": data}}])
    site.audit_until({("reader", "Unsigned")})
    (finding,) = site.status()["findings"]
    assert (finding["container"], finding["reason"]) == ("volumes[data].image", "Unsigned")
