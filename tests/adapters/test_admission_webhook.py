"""The whole admission program on loopback: real TLS, real registry, real signatures; only the API is tiny."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from edgemodel_operator.admission.main import serve
from edgemodel_operator.admission.policies import POLICIES_PATH
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.settings import AdmissionSettings, Settings
from edgemodel_operator.signing.sign import sign_image
from support.admission_program import (
    NAMESPACE,
    SECRETS,
    WEBHOOK,
    Program,
    new_key,
    policy,
    put_policy,
    review,
    running,
    signed,
    site,
)
from support.registry import FaultyRegistry, RegistryServer, free_port, start_registry
from support.signed_images import push_image


@pytest.fixture
async def program(registry: RegistryServer) -> AsyncIterator[Program]:
    async with running(registry.host) as program:
        await program.kube.wait_for_watcher()
        yield program


async def test_signed_images_are_admitted_and_others_are_refused_by_name(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    key, other_key = new_key(), new_key()
    good = await signed(client, registry.host, "admission/good", key)
    unsigned = await signed(client, registry.host, "admission/unsigned")
    foreign = await signed(client, registry.host, "admission/foreign", other_key)
    elsewhere = await signed(client, registry.host, "elsewhere/good", key)
    await put_policy(program, policy("plant", f"{registry.host}/admission/*", key))

    assert (await program.ask(str(good))).allowed
    refused = await program.ask(str(good), str(unsigned))
    assert not refused.allowed
    assert f'image {unsigned} does not satisfy TrustPolicy "plant": it is not signed' in refused.message
    assert "accepted: a signature by key-0" in refused.message
    assert "by none of the keys and identities that count here" in (await program.ask(str(foreign))).message
    assert "no TrustPolicy matches it in namespace plant-a" in (await program.ask(str(elsewhere))).message
    assert await program.metric('edgemodel_admission_decisions_total{decision="allow",mode="Enforce"}') == 1
    assert await program.metric('edgemodel_admission_decisions_total{decision="deny",mode="Enforce"}') == 3


async def test_case_04_an_image_signed_under_another_name_is_refused(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    key = new_key()
    content = b"the same bytes"
    original = await push_image(client, Reference(registry.host, "rehost/original"), content)
    await sign_image(client, original.index, [key])
    copy = await push_image(client, Reference(registry.host, "rehost/copy"), content)
    assert copy.digest == original.digest
    await put_policy(program, policy("plant", f"{registry.host}/rehost/*", key))
    assert (await program.ask(str(original.index))).allowed
    assert not (await program.ask(str(copy.index))).allowed


async def test_case_40f_all_policies_that_match_must_hold(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    plant, quality = new_key(), new_key()
    once = await signed(client, registry.host, "both/once", plant)
    twice = await signed(client, registry.host, "both/twice", plant, quality)
    await put_policy(program, policy("plant", f"{registry.host}/both/*", plant))
    await put_policy(program, policy("quality", f"{registry.host}/both/*", quality))
    assert (await program.ask(str(twice))).allowed
    refused = await program.ask(str(once))
    assert 'TrustPolicy "quality"' in refused.message
    assert 'TrustPolicy "plant"' not in refused.message


async def test_audit_admits_with_a_warning(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    unsigned = await signed(client, registry.host, "audit/unsigned")
    await put_policy(program, policy("soft", f"{registry.host}/audit/*", new_key(), mode="Audit"))
    answer = await program.ask(str(unsigned))
    assert answer.allowed
    assert 'TrustPolicy "soft": it is not signed' in answer.warnings[0]
    assert await program.metric('edgemodel_admission_decisions_total{decision="deny",mode="Audit"}') == 1


async def test_a_key_may_be_in_a_secret_and_without_it_nothing_is_certain(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    key = new_key()
    image = await signed(client, registry.host, "secret/image", key)
    await put_policy(program, policy("plant", f"{registry.host}/secret/*", secret="plant-key"))
    refused = await program.ask(str(image))
    assert "Secret plant-key in namespace edgemodel-system does not exist" in refused.message
    errors = 'edgemodel_admission_decisions_total{decision="error",mode="Enforce"}'
    assert await program.metric(errors) == 1
    data = {"cosign.pub": base64.b64encode(key.public_key.pem).decode()}
    await program.kube.put(f"{SECRETS}/second-key", {"data": data})
    await program.kube.delete(f"{POLICIES_PATH}/plant")
    await put_policy(program, policy("plant-2", f"{registry.host}/secret/*", secret="second-key"))
    async with asyncio.timeout(20):
        while not (await program.ask(str(image))).allowed:
            await asyncio.sleep(0.01)


async def test_case_23_a_registry_in_trouble_is_an_error_and_never_a_verdict(
    client: RegistryClient, registry: RegistryServer, faulty: FaultyRegistry
) -> None:
    key = new_key()
    stored = await signed(client, registry.host, "trouble/image", key)
    assert stored.digest is not None
    image = Reference(faulty.host, "trouble/image", digest=stored.digest)
    async with running(faulty.host) as program:
        await program.kube.wait_for_watcher()
        await put_policy(program, policy("plant", f"{faulty.host}/trouble/*", key))
        missing = Reference(faulty.host, "trouble/missing", digest=stored.digest)
        assert "could not be verified" in (await program.ask(str(missing))).message
        # Signed for the name of the real registry; seen through the proxy it has another name.
        assert "its signature is for the repository" in (await program.ask(str(image))).message
    async with running() as program:
        # Nobody speaks TLS on that port.
        await program.kube.wait_for_watcher()
        await put_policy(program, policy("plant", f"{registry.host}/trouble/*", key))
        answer = await program.ask(str(stored))
        assert not answer.allowed
        assert (
            await program.metric('edgemodel_admission_decisions_total{decision="error",mode="Enforce"}') == 1
        )


async def test_case_25b_a_verdict_outlives_the_registry(
    http_session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    key = new_key()
    verified = 'edgemodel_admission_verifications_total{result="trusted"}'
    with contextlib.ExitStack() as site:
        registry = site.enter_context(start_registry(tmp_path))
        client = RegistryClient(http_session, plain_http={registry.host})
        image = await signed(client, registry.host, "outage/image", key)
        other = await signed(client, registry.host, "outage/other", key)
        async with running(registry.host) as program:
            await program.kube.wait_for_watcher()
            await put_policy(program, policy("plant", f"{registry.host}/outage/*", key))
            assert (await program.ask(str(image))).allowed
            site.close()
            assert (await program.ask(*[str(image)] * 100)).allowed
            assert await program.metric(verified) == 1
            assert await program.metric("edgemodel_admission_cached_verdicts_total") == 1
            refused = await program.ask(str(image), str(other))
            assert f"image {other} does not satisfy" in refused.message
            assert "it could not be verified" in refused.message
            assert refused.seconds < 10


@pytest.mark.parametrize(
    ("body", "want_status"),
    [(b"", 400), (b"[]", 400), (b"{", 400), (b"[" * 200_000, 400), (b'{"request": {}}', 400)],
)
async def test_bodies_that_are_no_reviews_are_not_answered_with_yes(
    program: Program, body: bytes, want_status: int
) -> None:
    status, _, text = await program.post(body)
    assert status == want_status
    assert b"allowed" not in text


async def test_a_review_of_something_else_is_denied(program: Program) -> None:
    resource = {"group": "example.com", "version": "v1", "resource": "widgets"}
    answer = await program.ask("x", resource=resource)
    assert answer.message == "This webhook does not judge example.com/widgets."


async def test_case_37b_large_reviews_are_judged_and_huge_ones_refused(
    program: Program, client: RegistryClient, registry: RegistryServer
) -> None:
    key = new_key()
    image = await signed(client, registry.host, "large/image", key)
    await put_policy(program, policy("plant", f"{registry.host}/large/*", key))
    document = review([str(image)])
    document["request"]["object"]["metadata"]["annotations"] = {"filler": "x" * 3_000_000}
    document["request"]["oldObject"] = document["request"]["object"]
    status, _, body = await program.post(json.dumps(document).encode())
    assert (status, json.loads(body)["response"]["allowed"]) == (200, True)
    status, _, _ = await program.post(b" " * (9 * 1024 * 1024))
    assert status == 413


async def test_every_series_exists_before_the_first_request(program: Program) -> None:
    for decision in ("allow", "deny", "error"):
        for mode in ("Enforce", "Audit"):
            series = f'edgemodel_admission_decisions_total{{decision="{decision}",mode="{mode}"}}'
            assert await program.metric(series) == 0
    for result in ("trusted", "untrusted", "error"):
        assert await program.metric(f'edgemodel_admission_verifications_total{{result="{result}"}}') == 0
    assert await program.metric("edgemodel_admission_review_duration_seconds_count") == 0
    assert await program.metric("edgemodel_admission_certificate_expiry_timestamp_seconds") > time.time()


async def test_asked_to_stop_the_program_says_so_answers_on_and_ends(
    client: RegistryClient, registry: RegistryServer
) -> None:
    key = new_key()
    image = await signed(client, registry.host, "stop/image", key)
    async with running(registry.host, drain_seconds=2.0) as program:
        await program.kube.wait_for_watcher()
        await put_policy(program, policy("plant", f"{registry.host}/stop/*", key))
        program.stop.set()
        async with asyncio.timeout(2):
            while (await program.probe("/readyz"))[0] == 200:
                await asyncio.sleep(0.01)
        assert (await program.probe("/healthz"))[0] == 200
        status, headers, body = await program.post(json.dumps(review([str(image)])).encode())
        assert (status, json.loads(body)["response"]["allowed"]) == (200, True)
        assert headers["Connection"] == "close"
        await program.task
    with pytest.raises(aiohttp.ClientConnectorError):
        await program.probe("/healthz")


async def test_before_the_policies_are_read_the_program_is_not_ready_and_denies() -> None:
    async with site() as server:
        server.refuse["GET", POLICIES_PATH] = 503
        assert server.client is not None
        admission = AdmissionSettings(port=free_port())
        settings = Settings(namespace=NAMESPACE, metrics_port=free_port(), admission=admission)
        stop = asyncio.Event()
        task = asyncio.create_task(serve(settings, server.client, stop, drain_seconds=0))
        program = Program(server, admission.port, settings.metrics_port, stop, task)
        async with asyncio.timeout(20):
            while "caBundle" not in server.objects[WEBHOOK]["webhooks"][0]["clientConfig"]:
                await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(aiohttp.ClientError, ssl.SSLError):
                        answer = await program.ask("registry.example.com/x@sha256:" + "a" * 64)
                        break
                    await asyncio.sleep(0.01)
            assert "have not been read yet" in answer.message
            assert (await program.probe("/readyz"))[0] == 503
            server.refuse.clear()
            await program.until_ready()
        finally:
            stop.set()
            await task
