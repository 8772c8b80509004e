"""The admission program through the days of a site: cold boots, moving tags, changes, overload."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgemodel_operator.admission import server as admission_server
from edgemodel_operator.admission.load import Load
from edgemodel_operator.admission.policies import POLICIES_PATH, exceptions_path
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from support.admission_program import (
    NAMESPACE,
    VERDICTS,
    Program,
    new_key,
    policy,
    put_policy,
    review,
    running,
    running_in,
    signed,
    site,
)
from support.registry import RegistryServer, start_registry
from support.signed_images import push_image

STALE = "edgemodel_admission_stale_verdicts_used_total"


@pytest.fixture
async def program(registry: RegistryServer) -> AsyncIterator[Program]:
    async with running(registry.host) as program:
        await program.kube.wait_for_watcher()
        yield program


async def mutated(program: Program, document: dict[str, Any]) -> dict[str, Any]:
    """Have a pod mutated and give the review of the result, as the API server goes on with it."""
    response = await program.respond(document, "/mutate")
    assert response["allowed"]
    containers = document["request"]["object"]["spec"]["containers"]
    for operation in json.loads(base64.b64decode(response.get("patch", "W10="))):
        assert operation["op"] == "replace"
        containers[int(operation["path"].split("/")[3])]["image"] = operation["value"]
    return document


async def test_case_25c_after_a_cold_boot_without_the_registry_what_was_verified_is_admitted(
    http_session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    key = new_key()
    with contextlib.ExitStack() as machines:
        registry = machines.enter_context(start_registry(tmp_path))
        client = RegistryClient(http_session, plain_http={registry.host})
        image = await signed(client, registry.host, "boot/image", key)
        other = await signed(client, registry.host, "boot/other", key)
        async with site() as server:
            await server.put(f"{POLICIES_PATH}/plant", policy("plant", f"{registry.host}/boot/*", key))
            async with running_in(server, registry.host) as program:
                assert (await program.ask(str(image))).allowed
            machines.close()  # the power is back, the registry is not
            async with running_in(server, registry.host) as program:
                assert (await program.ask(str(image))).allowed
                assert "could not be verified" in (await program.ask(str(other))).message
                assert await program.metric(STALE) == 0
                assert await program.metric("edgemodel_admission_stored_verdicts") == 1
            # Another key: what was verified under the old one counts no more.
            document = policy("plant", f"{registry.host}/boot/*", new_key())
            await server.put(f"{POLICIES_PATH}/plant", document)
            async with running_in(server, registry.host) as program:
                assert not (await program.ask(str(image))).allowed
            await server.put(f"{POLICIES_PATH}/plant", policy("plant", f"{registry.host}/boot/*", key))
            # A damaged Secret is an empty one, never trust.
            await server.put(VERDICTS, {"data": {"verdicts.json": base64.b64encode(b"{}").decode()}})
            async with running_in(server, registry.host) as program:
                assert not (await program.ask(str(image))).allowed


async def test_verdicts_older_than_a_day_stand_only_while_the_registry_is_away(
    http_session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemodel_operator.admission.verdict_cache.FRESH_S", -1.0)
    key = new_key()
    with contextlib.ExitStack() as machines:
        registry = machines.enter_context(start_registry(tmp_path))
        client = RegistryClient(http_session, plain_http={registry.host})
        image = await signed(client, registry.host, "stale/image", key)
        async with site() as server:
            await server.put(f"{POLICIES_PATH}/plant", policy("plant", f"{registry.host}/stale/*", key))
            async with running_in(server, registry.host) as program:
                for _ in range(2):
                    assert (await program.ask(str(image))).allowed
                verified = 'edgemodel_admission_verifications_total{result="trusted"}'
                assert await program.metric(verified) == 2
                machines.close()
                assert (await program.ask(str(image))).allowed
                assert await program.metric(STALE) == 1


async def test_case_19b_a_tag_is_resolved_once_and_the_digest_decides(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    key = new_key()
    good = await signed(client, registry.host, "tags/model", key)
    assert good.digest is not None
    bad = await push_image(client, Reference(registry.host, "tags/model"), b"other bytes")
    await put_policy(program, policy("plant", f"{registry.host}/tags/*", key))
    name = f"{registry.host}/tags/model:7"

    async def point_tag_at(digest: str) -> None:
        manifest = await client.get_manifest(Reference(registry.host, "tags/model", digest=digest))
        tagged = Reference(registry.host, "tags/model", tag="7")
        await client.put_manifest(tagged, manifest.body, manifest.descriptor.media_type)

    await point_tag_at(good.digest)
    pod = await mutated(program, review([name]))
    assert pod["request"]["object"]["spec"]["containers"][0]["image"] == f"{name}@{good.digest}"
    await point_tag_at(bad.digest)
    assert (await program.respond(pod, "/validate"))["allowed"]
    again = json.dumps(pod)
    assert json.dumps(await mutated(program, pod)) == again
    moved = await mutated(program, review([name]))
    refused = await program.respond(moved, "/validate")
    assert not refused["allowed"]
    assert f"{name}@{bad.digest} does not satisfy" in refused["status"]["message"]


async def test_a_tag_without_its_registry_stays_and_is_refused_with_a_sentence(program: Program) -> None:
    await put_policy(program, policy("plant", "127.0.0.1:9/away/*", new_key()))
    pod = await mutated(program, review(["127.0.0.1:9/away/model:1"]))
    refused = await program.respond(pod, "/validate")
    assert "named by tag" in refused["status"]["message"]


async def test_an_exception_of_our_namespace_admits_for_a_while(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    unsigned = await signed(client, registry.host, "excused/image")
    await put_policy(program, policy("plant", f"{registry.host}/excused/*", new_key()))
    assert not (await program.ask(str(unsigned))).allowed
    end = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    spec = {
        "images": [f"{registry.host}/excused/*"],
        "namespaces": ["plant-*"],
        "expires": end,
        "reason": "the old gateway",
    }
    document = {"metadata": {"name": "gateway", "namespace": NAMESPACE}, "spec": spec}
    await program.kube.put(f"{exceptions_path(NAMESPACE)}/gateway", document)
    async with asyncio.timeout(20):
        while not (answer := await program.ask(str(unsigned))).allowed:
            await asyncio.sleep(0.01)
    assert f'TrustException "gateway" excuses it until {end}: the old gateway' in answer.warnings[0]
    assert await program.metric("edgemodel_admission_exceptions_used_total") == 1
    assert not (await program.ask(str(unsigned), namespace="warehouse")).allowed


def change_of(spec: Any, plural: str = "trustpolicies", **request: Any) -> dict[str, Any]:
    document = review([])
    resource = {"group": "edgemodel.dev", "version": "v1alpha1", "resource": plural}
    changed = {"metadata": {"name": "line"}, "spec": spec}
    document["request"] |= {"resource": resource, "namespace": "", "object": changed} | request
    return document


BAD_PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


async def test_case_40j_malformed_policies_are_refused_at_apply_with_a_sentence(program: Program) -> None:
    good: dict[str, Any] = policy("plant", "**", new_key())["spec"]
    root = {"name": "root"}
    for change, want in (
        ({"quorum": 2}, "spec.quorum"),
        ({"authorities": [{"name": "a", "keys": [{"data": BAD_PEM}]}]}, 'authority "a": keys[0]'),
        (
            {
                "authorities": [
                    {"name": "a", "keyless": {"issuerRegExp": "(", "subject": "x", "trustedRoot": root}}
                ]
            },
            'authority "a"',
        ),
        (
            {
                "attestations": [
                    {
                        "name": "sbom",
                        "predicateType": "https://cyclonedx.org/bom",
                        "checks": [{"expression": "predicate.", "message": "none"}],
                    }
                ]
            },
            'attestation "sbom"',
        ),
    ):
        response = await program.respond(change_of(good | change), "/trust")
        assert not response["allowed"]
        assert want in response["status"]["message"]
    assert (await program.respond(change_of(good), "/trust"))["allowed"]
    denied = 'edgemodel_admission_trust_changes_total{decision="deny",kind="TrustPolicy"}'
    assert await program.metric(denied) == 4
    elsewhere = change_of({}, "trustexceptions", namespace="plant-a")
    response = await program.respond(elsewhere, "/trust")
    assert "exceptions count only in namespace edgemodel-system" in response["status"]["message"]


async def test_every_change_of_trust_leaves_an_event_and_a_dry_run_none(program: Program) -> None:
    spec = policy("plant", "**", new_key())["spec"]
    old = {"metadata": {"name": "line"}, "spec": spec}
    for request in ({"dryRun": True}, {}):
        document = change_of(spec | {"mode": "Audit"}, operation="UPDATE", oldObject=old, **request)
        assert (await program.respond(document, "/trust"))["allowed"]

    def events() -> list[dict[str, Any]]:
        return [one for path, one in program.kube.objects.items() if "/default/events/" in path]

    async with asyncio.timeout(20):
        while not events():
            await asyncio.sleep(0.01)
    (event,) = events()
    assert event["message"] == 'UPDATE by kim: mode: "Enforce" → "Audit"'


async def test_overload_is_a_quick_clear_denial_and_never_an_admission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(metrics: Any) -> Load:
        return Load(metrics, max_reviews=0)

    monkeypatch.setattr(admission_server, "Load", no_room)
    image = "registry.example.com/x@sha256:" + "a" * 64
    async with running() as program:
        answer = await program.ask(image)
        assert not answer.allowed
        assert "overloaded" in answer.message
        assert not (await program.respond(review([image]), "/trust"))["allowed"]
        left = await program.respond(review([image]), "/mutate")
        assert left == {"uid": "u-1", "allowed": True}  # the validating webhook decides
        status, _, body = await program.post(b'{"request": {}}')
        assert status == 503
        assert b"overloaded" in body
        assert await program.metric("edgemodel_admission_shed_reviews_total") == 4
        errors = 'edgemodel_admission_decisions_total{decision="error",mode="Enforce"}'
        assert await program.metric(errors) == 3


async def test_reviews_that_wait_for_a_silent_registry_take_no_more_room_than_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission_server, "Load", lambda metrics: Load(metrics, max_reviews=1))
    asked, silence = asyncio.Event(), asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await silence.wait()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    host = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    digest = "sha256:" + "a" * 64
    async with silent, running(host) as program:
        await program.kube.wait_for_watcher()
        await put_policy(program, policy("plant", f"{host}/*", new_key()))
        waiting = asyncio.create_task(program.ask(f"{host}/x@{digest}"))
        await asked.wait()
        assert "overloaded" in (await program.ask("nginx")).message
        silence.set()
        assert "could not be verified" in (await waiting).message
        assert "names no registry" in (await program.ask("nginx")).message


async def test_more_bytes_than_there_is_room_for_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def little_room(metrics: Any) -> Load:
        return Load(metrics, max_bytes=1000)

    monkeypatch.setattr(admission_server, "Load", little_room)
    async with running() as program:
        assert (await program.post(b" " * 1001))[0] == 503
        assert (await program.post(b" " * 1000))[0] == 400


async def test_who_announces_much_and_sends_nothing_takes_no_room_from_others(program: Program) -> None:
    """Anybody in the cluster can connect; what they say that they will send is not in memory yet."""
    writers = [await program.begin(8 * 1024 * 1024) for _ in range(20)]
    try:
        answer = await program.ask("nginx")
        assert "names no registry" in answer.message
    finally:
        for writer in writers:
            writer.close()


async def test_case_37c_a_hundred_containers_in_three_megabytes_are_judged(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    key = new_key()
    image = await signed(client, registry.host, "hundred/image", key)
    await put_policy(program, policy("plant", f"{registry.host}/hundred/*", key))
    pod = {"metadata": {"annotations": {"filler": "x" * 3_000_000}}}
    names = [str(image)] * 50 + [str(image).replace("@", f":{n}@") for n in range(50)]
    containers = [{"name": f"c{n}", "image": name} for n, name in enumerate(names)]
    assert (await program.ask(object=pod | {"spec": {"containers": containers}})).allowed
    assert await program.metric('edgemodel_admission_verifications_total{result="trusted"}') == 1
    containers[77]["image"] = f"{registry.host}/hundred/image@sha256:{'0' * 64}"
    refused = await program.ask(object=pod | {"spec": {"containers": containers}})
    assert not refused.allowed
    assert "0" * 64 in refused.message
