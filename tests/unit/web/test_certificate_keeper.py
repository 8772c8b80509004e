"""Two replicas, one Secret, one webhook configuration: they agree, announce, present and renew."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.web.announcement import ConfigMapAnnouncement, WebhookAnnouncement
from edgemodel_operator.web.certificate_keeper import CertificateKeeper, CertificateNames
from edgemodel_operator.web.certificates import CA_LIFE, LEAF_LIFE, OVERLAP, parse_material
from support.kube_api import KubeApiServer, kube_api_server

NAMES = CertificateNames("edgemodel-system", "tls", "edgemodel-admission")
SECRET = "/api/v1/namespaces/edgemodel-system/secrets/tls"
WEBHOOK = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/edgemodel-admission"
MUTATING = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/edgemodel-admission"


class Clock:
    """A time of day that a test moves; it begins at the real one, because TLS clients look at that."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def webhook(name: str, service: str = "edgemodel-admission") -> dict[str, Any]:
    service_reference = {"name": service, "namespace": "edgemodel-system"}
    return {"name": name, "clientConfig": {"service": service_reference}, "failurePolicy": "Fail"}


def make_keeper(
    api: KubeApi, clock: Clock | None = None, metrics: AdmissionMetrics | None = None
) -> CertificateKeeper:
    announcement = WebhookAnnouncement(api, "edgemodel-admission", (NAMES.namespace, NAMES.service))
    return CertificateKeeper(api, NAMES, announcement, metrics or AdmissionMetrics(), clock or Clock())


@pytest.fixture
async def kube() -> AsyncIterator[tuple[KubeApiServer, KubeApi]]:
    async with kube_api_server() as (server, api):
        webhooks = [webhook("pods.edgemodel.dev"), webhook("other.example.com", "other")]
        await server.put(WEBHOOK, {"webhooks": webhooks})
        await server.put(SECRET, {"type": "Opaque", "metadata": {"labels": {"kept": "yes"}}})
        yield server, api


def bundle(server: KubeApiServer, index: int = 0) -> str:
    encoded = server.objects[WEBHOOK]["webhooks"][index]["clientConfig"].get("caBundle", "")
    return base64.b64decode(encoded).decode()


async def handshake(keeper: CertificateKeeper, ca_bundle: str, host: str = NAMES.host) -> None:
    """Connect to a server with the keeper's context as the API server would; raises ssl.SSLError."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=keeper.context).start()
    port = int(runner.addresses[0][1])
    try:
        context = ssl.create_default_context(cadata=ca_bundle)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()


async def test_the_first_look_makes_announces_and_presents_a_certificate(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    metrics, clock = AdmissionMetrics(), Clock()
    keeper = make_keeper(api, clock, metrics)
    assert not keeper.ready
    await keeper.look_after()
    assert keeper.ready
    await handshake(keeper, bundle(server))
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(keeper, bundle(server), "other.edgemodel-system.svc")
    assert server.objects[SECRET]["metadata"]["labels"] == {"kept": "yes"}
    expiry = metrics.registry.get_sample_value("edgemodel_admission_certificate_expiry_timestamp_seconds")
    assert expiry == int((clock.now + LEAF_LIFE).timestamp())


async def test_only_webhooks_that_call_us_are_changed_and_only_in_their_bundle(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    await make_keeper(api).look_after()
    ours, other = server.objects[WEBHOOK]["webhooks"]
    assert other == webhook("other.example.com", "other")
    assert ours.pop("failurePolicy") == "Fail"
    assert ours["clientConfig"].pop("caBundle")
    assert ours == {
        key: value for key, value in webhook("pods.edgemodel.dev").items() if key != "failurePolicy"
    }


async def test_a_second_look_writes_nothing(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    keeper = make_keeper(api)
    await keeper.look_after()
    server.calls.clear()
    await keeper.look_after()
    assert {method for method, _ in server.calls} == {"GET"}


async def test_ten_replicas_that_start_at_once_agree(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    clock = Clock()
    keepers = [make_keeper(api, clock) for _ in range(10)]
    await asyncio.gather(*map(look_until_agreed, keepers))
    for keeper in keepers:
        await handshake(keeper, bundle(server))


async def look_until_agreed(keeper: CertificateKeeper) -> None:
    """Look again on conflicts as the program does, without its pauses; any other failure is one."""
    while True:
        try:
            return await keeper.look_after()
        except KubeError as error:
            if error.status != 409:
                raise


async def test_a_secret_that_is_missing_stops_nothing_that_runs_and_says_what_to_do(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    keeper, late = make_keeper(api), make_keeper(api)
    await keeper.look_after()
    await server.delete(SECRET)
    for one in (keeper, late):
        with pytest.raises(KubeError, match=r"the Secret tls is gone from namespace .* run `helm upgrade`"):
            await one.look_after()
    assert (keeper.ready, late.ready) == (True, False)
    await handshake(keeper, bundle(server))
    await server.put(SECRET, {"type": "Opaque", "metadata": {}})  # as the chart makes it
    await keeper.look_after()
    await late.look_after()
    await handshake(late, bundle(server))


@pytest.mark.parametrize("data", [{"tls.crt": "AAAA"}, {"ca.crt": "!"}, {"ca.key": "AAAA", "ca.crt": "AAAA"}])
async def test_a_damaged_secret_is_replaced(
    kube: tuple[KubeApiServer, KubeApi], data: dict[str, str]
) -> None:
    server, api = kube
    await server.put(SECRET, {"type": "Opaque", "data": data})
    keeper = make_keeper(api)
    await keeper.look_after()
    await handshake(keeper, bundle(server))


async def test_a_bundle_that_somebody_removed_comes_back(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    keeper = make_keeper(api)
    await keeper.look_after()
    await server.put(
        WEBHOOK, {"webhooks": [webhook("pods.edgemodel.dev"), webhook("other.example.com", "x")]}
    )
    await keeper.look_after()
    await handshake(keeper, bundle(server))


@pytest.mark.parametrize(
    ("method", "path"), [("GET", SECRET), ("PUT", SECRET), ("GET", WEBHOOK), ("PATCH", WEBHOOK)]
)
async def test_without_the_api_the_program_is_not_ready_and_later_is(
    kube: tuple[KubeApiServer, KubeApi], method: str, path: str
) -> None:
    server, api = kube
    server.refuse[method, path] = 503
    keeper = make_keeper(api)
    with pytest.raises(KubeError):
        await keeper.look_after()
    assert not keeper.ready
    server.refuse.clear()
    await keeper.look_after()
    assert keeper.ready


@pytest.mark.parametrize("webhooks", [None, [], [webhook("other.example.com", "other")]])
async def test_without_a_webhook_that_calls_us_the_program_is_not_ready(
    kube: tuple[KubeApiServer, KubeApi], webhooks: list[dict[str, Any]] | None
) -> None:
    server, api = kube
    await server.delete(WEBHOOK)
    if webhooks is not None:
        await server.put(WEBHOOK, {"webhooks": webhooks})
    keeper = make_keeper(api)
    with pytest.raises(KubeError, match="edgemodel-admission"):
        await keeper.look_after()
    assert not keeper.ready


async def test_every_mutating_webhook_that_calls_us_is_told_too_and_may_be_missing(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    keeper = make_keeper(api)
    await keeper.look_after()
    names = ("digests.edgemodel.dev", "labels.edgemodel.dev")
    await server.put(MUTATING, {"webhooks": [webhook("other.example.com", "other"), *map(webhook, names)]})
    await keeper.look_after()
    other, *ours = server.objects[MUTATING]["webhooks"]
    assert "caBundle" not in other["clientConfig"]
    assert {base64.b64decode(one["clientConfig"]["caBundle"]).decode() for one in ours} == {bundle(server)}


async def test_a_config_map_can_tell_the_clients_instead(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    path = "/api/v1/namespaces/edgemodel-system/configmaps/edgemodel-signer-ca"
    announcement = ConfigMapAnnouncement(api, "edgemodel-system", "edgemodel-signer-ca", manager="test")
    keeper = CertificateKeeper(api, NAMES, announcement, AdmissionMetrics(), Clock())
    with pytest.raises(KubeError, match="edgemodel-signer-ca"):
        await keeper.look_after()
    assert not keeper.ready

    await server.put(path, {"kind": "ConfigMap", "data": {"kept": "yes"}})
    await keeper.look_after()
    assert server.objects[path]["data"]["kept"] == "yes"
    await handshake(keeper, server.objects[path]["data"]["ca.crt"])

    server.calls.clear()
    await keeper.look_after()
    assert {method for method, _ in server.calls} == {"GET"}


async def test_through_a_change_of_the_ca_both_replicas_are_always_accepted(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    # The look at two thirds of the CA's life is now, so that a real TLS client accepts what is made.
    clock = Clock()
    today = clock.now
    clock.now = today - CA_LIFE * 2 / 3
    one, two = (make_keeper(api, clock) for _ in range(2))
    await one.look_after()
    clock.now = today - timedelta(days=30)
    await one.look_after()
    await two.look_after()
    old_bundle = bundle(server)
    await handshake(two, old_bundle)

    clock.now = today + timedelta(seconds=1)
    await one.look_after()
    assert bundle(server).count("BEGIN CERTIFICATE") == 2
    await handshake(one, old_bundle)
    await handshake(two, bundle(server))

    clock.now += OVERLAP
    await one.look_after()
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(one, old_bundle)
    await handshake(one, bundle(server))
    await handshake(two, bundle(server))
    await two.look_after()
    await handshake(two, bundle(server))
    stored = server.objects[SECRET]["data"]
    material = parse_material({key: base64.b64decode(value) for key, value in stored.items()})
    assert material is not None
    assert material.ca_bundle.decode() == bundle(server)
