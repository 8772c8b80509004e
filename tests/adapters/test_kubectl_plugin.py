"""`kubectl edgemodel` as a person calls it: a process, a kubeconfig, an API server and a real registry."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.tools import tool
from edgemodel_operator.cli import kubectl_audit, kubectl_verify
from edgemodel_operator.cli.kubectl import plugin
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from support.build import sha256
from support.command_line import Ended
from support.kube_api import KubeApiServer, kube_api_server
from support.registry import RegistryServer
from support.signed_images import PushedImage, push_image

KEY = LocalKey(ec.generate_private_key(ec.SECP256R1()))
BUILD_KEY = "5c" * 32
GROUP = "/apis/edgemodel.dev/v1alpha1"
PROVENANCE = "https://slsa.dev/provenance/v1"


@dataclass
class Desk:
    """The machine of a person: a kubeconfig, and the registry by its name."""

    server: KubeApiServer
    kubeconfig: Path
    registry: str

    async def call(self, *arguments: str) -> Ended:
        """Call the plugin in a thread: starting a process takes longer than most of these tests."""
        given = [*arguments, f"--plain-http={self.registry}", f"--kubeconfig={self.kubeconfig}"]
        environment = {"DOCKER_CONFIG": "/nonexistent"}
        ended = await asyncio.to_thread(CliRunner().invoke, plugin, given, env=environment)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exc_info
        return Ended(int(ended.exit_code), ended.stdout, ended.stderr)

    async def call_by_kubectl(self, *arguments: str) -> Ended:
        """Call it as kubectl does: by its name, from the PATH."""
        folder = self.kubeconfig.parent
        program = folder / "kubectl-edgemodel"
        module = "edgemodel_operator.cli.kubectl"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.kubeconfig),
            "DOCKER_CONFIG": "/nonexistent",
        }
        process = await asyncio.create_subprocess_exec(
            *(str(tool("kubectl")), "edgemodel", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def trust(self, name: str, key: LocalKey = KEY, **spec: Any) -> None:
        authority = {"name": "operator", "keys": [{"data": key.public_key.pem.decode()}]}
        body = {"images": [f"{self.registry}/**"], "authorities": [authority], **spec}
        await self.server.put(f"{GROUP}/trustpolicies/{name}", {"metadata": {"name": name}, "spec": body})


@pytest.fixture
async def desk(
    tmp_path: Path, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    for module in (kubectl_audit, kubectl_verify):
        monkeypatch.setattr(module, "run", asyncio.run)  # only a main thread can take signals
    async with kube_api_server() as (server, _):
        clusters = [
            {"name": name, "cluster": {"server": url}}
            for name, url in (("plant", server.url), ("other", "http://127.0.0.1:9"))
        ]
        contexts = [
            {"name": "plant", "context": {"cluster": "plant", "user": "me", "namespace": "plant-a"}},
            {"name": "other", "context": {"cluster": "other", "user": "me"}},
        ]
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": clusters,
                    "contexts": contexts,
                    "users": [{"name": "me", "user": {"token": "x"}}],
                    "current-context": "plant",
                }
            )
        )
        yield Desk(server, kubeconfig, registry.host)


@pytest.fixture
async def image(client: RegistryClient, desk: Desk, request: pytest.FixtureRequest) -> PushedImage:
    """Push an image, signed and with its provenance, and have an EdgeModel and a pod that use it."""
    repository = Reference(desk.registry, f"plugin/n{sha256(request.node.name.encode())[:12]}")
    pushed = await push_image(client, repository)
    await sign_image(client, pushed.index, [KEY])
    index = (await client.get_manifest(pushed.index)).descriptor
    await attest_digest(client, pushed.index, index, [Attestation(PROVENANCE, provenance())], [KEY])
    await desk.server.put(f"{GROUP}/namespaces/plant-a/edgemodels/line", edge_model(pushed))
    await desk.server.put(f"{GROUP}/edgemodels/line", edge_model(pushed))
    await desk.server.put("/api/v1/pods/line-x", pod(pushed))
    return pushed


def provenance() -> bytes:
    return canonical_json(
        {
            "buildDefinition": {
                "internalParameters": {"buildKey": BUILD_KEY},
                "resolvedDependencies": [
                    {"uri": "https://models.plant-a.local/line.onnx", "digest": {"sha256": "ab" * 32}}
                ],
            },
            "runDetails": {"builder": {"id": "https://edgemodel.dev/builder/v1", "version": {"tool": "1.2"}}},
        }
    )


def edge_model(image: PushedImage) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "plant-a", "name": "line"},
        "spec": {
            "model": {"version": "7", "source": {"http": {"url": "https://models.plant-a.local/line.onnx"}}}
        },
        "status": {
            "conditions": [{"type": "Built", "status": "True", "lastTransitionTime": "2026-11-20T08:00:00Z"}],
            "model": {"files": [{"name": "line.onnx", "sha256": "ab" * 32, "size": 1200}]},
            "images": [{"variant": "onnxruntime-cpu", "buildKey": BUILD_KEY, "image": str(image.index)}],
            "currentRevision": "r1",
            "targetRevision": "r1",
            "revisions": [{"name": "r1", "targets": [{"accelerator": "cpu", "image": str(image.index)}]}],
        },
    }


def pod(image: PushedImage) -> dict[str, Any]:
    running = {"running": {"startedAt": "2026-11-20T09:00:00Z"}}
    return {
        "metadata": {"namespace": "plant-a", "name": "line-x"},
        "spec": {"nodeName": "edge-a", "containers": [{"name": "server", "image": str(image.index)}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "server", "imageID": str(image.children[0]), "state": running}],
        },
    }


async def test_kubectl_finds_the_plugin_and_gives_it_the_arguments(desk: Desk, image: PushedImage) -> None:
    await desk.trust("models")
    ended = await desk.call_by_kubectl("verify", "line", f"--plain-http={desk.registry}")
    assert ended.code == 0, ended.err
    assert "trusted: vouched for by operator" in ended.out


async def test_a_model_is_verified_step_by_step(desk: Desk, image: PushedImage) -> None:
    await desk.trust("models")
    ended = await desk.call("verify", "line")
    assert ended.code == 0, ended.err
    assert "revision r1 (current, target)" in ended.out
    assert str(image.index) in ended.out
    assert 'TrustPolicy "models"' in ended.out
    assert "trusted: vouched for by operator" in ended.out


async def test_every_policy_of_the_cluster_must_hold(desk: Desk, image: PushedImage) -> None:
    await desk.trust("models")
    await desk.trust("strict", LocalKey(ec.generate_private_key(ec.SECP256R1())))
    ended = await desk.call("verify", "line", "-o", "json")
    assert ended.code == 1
    (found,) = ended.json()
    states = {check["title"]: check["state"] for check in found["checks"]}
    assert states == {'TrustPolicy "models"': "Trusted", 'TrustPolicy "strict"': "Untrusted"}


async def test_an_image_that_no_policy_covers_is_untrusted(desk: Desk, image: PushedImage) -> None:
    ended = await desk.call("verify", "line")
    assert ended.code == 1
    assert "no TrustPolicy matches it in namespace plant-a" in ended.out


async def test_a_policy_that_is_not_understood_leaves_it_open(desk: Desk, image: PushedImage) -> None:
    await desk.trust("models", surprise=1)
    ended = await desk.call("verify", "line")
    assert ended.code == 3
    assert "cannot be understood" in ended.out


async def test_an_exception_is_named(desk: Desk, image: PushedImage) -> None:
    await desk.trust("models", LocalKey(ec.generate_private_key(ec.SECP256R1())))
    exception = {
        "metadata": {"name": "for-now", "namespace": "edgemodel-system"},
        "spec": {
            "images": ["**"],
            "namespaces": ["plant-a"],
            "expires": soon(),
            "reason": "the line stands still else",
        },
    }
    path = f"{GROUP}/namespaces/edgemodel-system/trustexceptions/for-now"
    await desk.server.put(path, exception)
    ended = await desk.call("verify", "line")
    assert ended.code == 1
    assert 'TrustException "for-now"' in ended.out


@pytest.mark.parametrize("asked", ["name", "image", "digest"])
async def test_a_trail_leads_from_the_source_to_the_nodes(desk: Desk, image: PushedImage, asked: str) -> None:
    await desk.trust("models")
    refused = {
        "metadata": {"name": "refused", "namespace": "plant-a"},
        "reportingComponent": "edgemodel-admission",
        "involvedObject": {"kind": "Namespace", "name": "plant-a"},
        "reason": "ImageRefused",
        "lastTimestamp": "2026-11-20T07:00:00Z",
        "message": f"pods plant-a/x, asked for by me: image {image.index} is not signed",
    }
    await desk.server.put("/api/v1/events/refused", refused)
    await desk.server.put("/api/v1/events/foreign", {**refused, "reportingComponent": "somebody"})
    what = {"name": "line", "image": str(image.index), "digest": image.digest}[asked]
    ended = await desk.call("audit", what)
    assert ended.code == 0, ended.err
    assert [line for line in ended.out.splitlines() if line and not line.startswith(" ")] == [
        str(image.index),
        *("source", "build", "signatures", "attestations", "events", "nodes"),
    ]
    for expected in (
        "EdgeModel plant-a/line, version 7: http https://models.plant-a.local/line.onnx",
        f"line.onnx  sha256:{'ab' * 32}  1.2 kB",
        f"build key {BUILD_KEY} (attested)",
        "builder https://edgemodel.dev/builder/v1 tool 1.2 (attested by operator, key ",
        "Legacy signature of sha256:",
        f"{PROVENANCE}  Bundle  of sha256:",
        "2026-11-20T07:00:00Z  ImageRefused  Namespace plant-a: pods plant-a/x",
        "edge-a  plant-a/line-x containers[server]  since 2026-11-20T09:00:00Z",
    ):
        assert expected in ended.out, expected
    assert ended.out.count("ImageRefused") == 1
    assert "\x1b" not in ended.out


async def test_a_trail_is_also_written_for_programs(desk: Desk, image: PushedImage) -> None:
    await desk.trust("models")
    ended = await desk.call("audit", str(image.index), "--output=json")
    (trail,) = ended.json()
    assert trail["image"] == str(image.index)
    assert trail["provenance"]["buildDefinition"]["internalParameters"] == {"buildKey": BUILD_KEY}
    assert trail["nodes"] == [
        {
            "node": "edge-a",
            "namespace": "plant-a",
            "pod": "line-x",
            "container": "containers[server]",
            "since": "2026-11-20T09:00:00Z",
        }
    ]
    assert trail["verification"]["state"] == "Trusted"
    assert {one["format"] for one in trail["attestations"]} == {"Legacy", "Bundle"}


async def test_a_registry_that_cannot_be_asked_leaves_what_the_cluster_knows(
    desk: Desk, image: PushedImage
) -> None:
    await desk.trust("models")
    elsewhere = edge_model(image)
    gone = f"127.0.0.1:9/models/line@{image.digest}"
    elsewhere["status"]["images"][0]["image"] = gone
    elsewhere["status"]["revisions"][0]["targets"][0]["image"] = gone
    await desk.server.put(f"{GROUP}/namespaces/plant-a/edgemodels/line", elsewhere)
    await desk.server.put(f"{GROUP}/edgemodels/line", elsewhere)
    ended = await desk.call("audit", "line")
    assert ended.code == 3
    assert "not known" in ended.out
    assert "edge-a  plant-a/line-x" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("verify", "nobody"), 1, "there is no EdgeModel nobody in namespace plant-a"),
        (("verify", "nobody", "-n", "plant-b"), 1, "in namespace plant-b"),
        (("audit", f"sha256:{'0' * 64}"), 1, "nothing in the cluster names"),
        (("audit", "nginx/"), 2, "names no registry"),
        (("verify", "line", "--context=other"), 3, "failed"),
        (("verify", "line", "--context=missing"), 2, "no cluster to connect to"),
    ],
)
async def test_what_cannot_be_answered_is_one_sentence(
    desk: Desk, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = await desk.call(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("error: ")
    assert said in ended.err
    assert ended.err.count("\n") == 1


def soon() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
