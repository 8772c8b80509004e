"""Certificates of the running program: expired at a cold boot, replaced under way. Nothing is let through."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from edgemodel_operator.admission.policies import POLICIES_PATH
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.web import certificate_keeper
from edgemodel_operator.web.certificates import Material, dump_material, next_material
from support.admission_program import (
    HOST,
    TLS,
    WEBHOOK,
    Program,
    new_key,
    policy,
    review,
    running_in,
    signed,
    site,
)
from support.kube_api import KubeApiServer
from support.registry import RegistryServer

UNSIGNED = "registry.example.com/x@sha256:" + "a" * 64


def secret_of(material: Material) -> dict[str, Any]:
    fields = dump_material(material).items()
    return {"data": {name: base64.b64encode(value).decode() for name, value in fields}}


def announced(server: KubeApiServer) -> str:
    client_config = server.objects[WEBHOOK]["webhooks"][0]["clientConfig"]
    return base64.b64decode(client_config["caBundle"]).decode()


async def ask_with(program: Program, bundle: str, image: str) -> bool:
    """Ask as an API server does that knows this bundle. Raises ClientConnectorCertificateError."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://127.0.0.1:{program.port}/validate",
            data=json.dumps(review([image])),
            ssl=ssl.create_default_context(cadata=bundle),
            server_hostname=HOST,
        ) as response,
    ):
        answer: dict[str, Any] = await response.json()
    return bool(answer["response"]["allowed"])


async def test_case_39a_a_certificate_that_expired_while_the_site_was_off_is_replaced_at_once(
    client: RegistryClient, registry: RegistryServer
) -> None:
    key = new_key()
    image = await signed(client, registry.host, "expired/image", key)
    long_ago = next_material(None, HOST, datetime.now(UTC) - timedelta(days=900))
    assert long_ago.expires < datetime.now(UTC)
    async with site() as server:
        await server.put(TLS, secret_of(long_ago))
        server.objects[WEBHOOK]["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(
            long_ago.ca_bundle
        ).decode()
        await server.put(f"{POLICIES_PATH}/plant", policy("plant", f"{registry.host}/expired/*", key))
        async with running_in(server, registry.host) as program:
            assert (await program.ask(str(image))).allowed
            assert not (await program.ask(UNSIGNED)).allowed
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await ask_with(program, long_ago.ca_bundle.decode(), str(image))


async def test_case_39b_while_the_authority_changes_old_and_new_bundles_are_accepted(
    monkeypatch: pytest.MonkeyPatch, client: RegistryClient, registry: RegistryServer
) -> None:
    monkeypatch.setattr(certificate_keeper, "LOOK_EVERY_S", 0.02)
    key = new_key()
    image = await signed(client, registry.host, "rotated/image", key)
    # The CA is due: made when two thirds of its life were over a day ago, with a leaf of today.
    now = datetime.now(UTC)
    old = next_material(next_material(None, HOST, now - timedelta(days=487)), HOST, now - timedelta(days=20))
    before = old.ca_bundle.decode()
    async with site() as server:
        await server.put(TLS, secret_of(old))
        await server.put(f"{POLICIES_PATH}/plant", policy("plant", f"{registry.host}/rotated/*", key))
        async with running_in(server, registry.host) as one, running_in(server, registry.host) as two:
            async with asyncio.timeout(20):
                while announced(server).count("BEGIN") < 2:
                    await asyncio.sleep(0.01)
            for program in (one, two):
                # An API server that has not heard of the news yet, and one that has.
                for bundle in (before, announced(server)):
                    assert await ask_with(program, bundle, str(image))
                    assert not await ask_with(program, bundle, UNSIGNED)


async def test_case_39c_when_the_authority_is_lost_nothing_passes_unseen_and_a_new_one_is_announced(
    monkeypatch: pytest.MonkeyPatch, client: RegistryClient, registry: RegistryServer
) -> None:
    monkeypatch.setattr(certificate_keeper, "LOOK_EVERY_S", 0.02)
    key = new_key()
    image = await signed(client, registry.host, "lost/image", key)
    async with site() as server:
        await server.put(f"{POLICIES_PATH}/plant", policy("plant", f"{registry.host}/lost/*", key))
        async with running_in(server, registry.host) as one, running_in(server, registry.host) as two:
            before = announced(server)
            await server.put(TLS, {"data": {}})
            unsigned: list[bool] = []
            async with asyncio.timeout(30):
                for program in (one, two):
                    while True:
                        try:  # with what the API server knows at this moment
                            unsigned.append(await ask_with(program, announced(server), UNSIGNED))
                            if announced(server) != before and (await program.ask(str(image))).allowed:
                                break
                        except aiohttp.ClientConnectorCertificateError:
                            await asyncio.sleep(0.01)  # a denial: the webhook fails closed
            assert not any(unsigned)
