"""The whole agent of a node against a real registry: what it lets containerd pull, and what not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.node.main import serve
from edgemodel_operator.node.record import load_record
from edgemodel_operator.node.trust import POLICIES_PATH, exceptions_path
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.settings import Settings
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from support.kube_api import KubeApiServer, kube_api_server
from support.registry import FaultyRegistry, RegistryServer, fail_times, free_port
from support.signed_images import PushedImage, push_image

KEY, STRANGER = (LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
SPACE = "edgemodel-system"
SECRET = f"/api/v1/namespaces/{SPACE}/secrets/public"


@dataclass
class Agent:
    """A running agent: its node's folder, its API server, and the registry's host."""

    folder: Path
    server: KubeApiServer
    host: str

    async def ask(self, name: str, digest: str) -> tuple[bool, str]:
        """Run the installed program as containerd does."""
        argv = [str(self.folder / "verifier/bin/edgemodel"), "-name", name, "-digest", digest]
        run = await asyncio.to_thread(
            subprocess.run, argv, capture_output=True, text=True, check=False, timeout=60, env={}
        )
        return run.returncode == 0, run.stdout


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(folder: Path, host: str, **policy: Any) -> AsyncIterator[Agent]:
    """Run the program for a node that is a folder, with one policy about everything in a registry."""
    state, bin_dir = folder / "state", folder / "verifier/bin"
    settings = Settings.model_validate(
        {
            "namespace": SPACE,
            "metricsPort": free_port(),
            "registries": {"plainHttp": [host]},
            "node": {"stateDir": str(state), "binDir": str(bin_dir)},
        }
    )
    pem = base64.b64encode(KEY.public_key.pem).decode()
    async with kube_api_server() as (server, api):
        authorities = [{"name": "plant", "keys": [{"secretRef": {"name": "public"}}]}]
        spec = {"images": [f"{host}/**"], "authorities": authorities} | policy
        await server.put(SECRET, {"metadata": {"name": "public"}, "data": {"cosign.pub": pem}})
        await server.put(f"{POLICIES_PATH}/plant", {"metadata": {"name": "plant"}, "spec": spec})
        daemon_set = f"/apis/apps/v1/namespaces/{SPACE}/daemonsets/edgemodel-node"
        await server.put(daemon_set, {"metadata": {"name": "edgemodel-node"}})
        stop = asyncio.Event()
        task = asyncio.create_task(serve(settings, api, stop))
        try:
            await until(lambda: (bin_dir / "edgemodel").exists() or task.done())
            yield Agent(folder, server, host)
        finally:
            stop.set()
            await task


async def pushed(client: RegistryClient, host: str, name: str, *keys: LocalKey) -> PushedImage:
    image = await push_image(client, Reference(host, f"node/{name}"), name.encode())
    if keys:
        await sign_image(client, image.index, keys)
    return image


async def test_an_image_is_pulled_when_it_is_signed_as_the_policy_asks(
    client: RegistryClient, registry: RegistryServer, tmp_path: Path
) -> None:
    good = await pushed(client, registry.host, "good", KEY)
    strange = await pushed(client, registry.host, "strange", STRANGER)
    async with running(tmp_path, registry.host) as agent:
        allowed = await agent.ask(str(good.index), good.digest)
        tagged = await agent.ask(f"{good.index.name}:1", good.digest)
        child = await agent.ask(good.index.name, good.digests[1])
        refused = await agent.ask(str(strange.index), strange.digest)
        missing = await agent.ask(good.index.name, f"sha256:{'0' * 64}")
    assert allowed[0]
    assert tagged[0]
    assert child[0]
    assert not refused[0]
    assert "by none of the keys" in refused[1]
    assert not missing[0]


async def test_case_25e_a_registry_that_fails_is_an_error_unless_the_verdict_is_known(
    client: RegistryClient, registry: RegistryServer, faulty: FaultyRegistry, tmp_path: Path
) -> None:
    image = await pushed(client, registry.host, "faulty", KEY)
    name = f"{faulty.host}/{image.index.repository}"
    async with running(tmp_path, faulty.host, acceptCopies=True) as agent:
        faulty.faults.append(fail_times(99, 403))
        refused, why = await agent.ask(name, image.digest)
        faulty.faults.clear()
        allowed, _ = await agent.ask(name, image.digest)
        # From now on it is known.
        faulty.faults.append(fail_times(99, 403))
        again, _ = await agent.ask(name, image.digest)
    assert not refused
    assert "could not be verified" in why
    assert allowed
    assert again


async def test_an_exception_counts_as_soon_as_it_is_there(
    client: RegistryClient, registry: RegistryServer, tmp_path: Path
) -> None:
    image = await pushed(client, registry.host, "excused")
    end = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    spec = {"images": [str(image.index)], "namespaces": ["plant-a"], "expires": end, "reason": "old gateway"}
    document = {"metadata": {"name": "for-now", "namespace": SPACE}, "spec": spec}
    async with running(tmp_path, registry.host) as agent:
        before, _ = await agent.ask(str(image.index), image.digest)
        await agent.server.put(f"{exceptions_path(SPACE)}/for-now", document)
        async with asyncio.timeout(30):
            while not (await agent.ask(str(image.index), image.digest))[0]:
                pass
        _, reason = await agent.ask(str(image.index), image.digest)
    assert not before
    assert "for-now" in reason


async def test_what_was_pulled_is_known_after_a_power_cut_at_once(
    client: RegistryClient, registry: RegistryServer, tmp_path: Path
) -> None:
    image = await pushed(client, registry.host, "at-once", KEY)
    async with running(tmp_path, registry.host) as agent:
        await agent.ask(str(image.index), image.digest)
        record = load_record(tmp_path / "state" / "record.json")
    assert record is not None
    assert str(image.index) in record.verdicts
