"""The signer over TLS, asked by the operator's side: who may ask, what is answered, what it tells of it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.image_signer import ImageSigner
from edgemodel_operator.adapters.registries import Registries
from edgemodel_operator.adapters.signer_protocol import KEYS_PATH, MAX_MESSAGE_BYTES, SIGN_PATH
from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.core.supply import BuiltImage, SupplyError
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.settings import SigningCommand
from edgemodel_operator.signing.bundle import (
    STATEMENT_MEDIA_TYPE,
    make_statement,
    pre_authentication_encoding,
)
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.keys import LocalKey, load_public_key
from edgemodel_operator.signing.simple_signing import make_payload
from edgemodel_operator.signing.verdict import Reason, Trusted, Untrusted
from edgemodel_operator.signing.verify import verify_image
from edgemodel_operator.web.certificates import next_material
from support.registry import RegistryServer
from support.signed_images import PushedImage, push_image
from support.signer import (
    NAMESPACE,
    OPERATOR,
    SignerSite,
    config_map_path,
    fresh_secret,
    secret_path,
    signer_site,
)

REPOSITORY = "registry.plant-a.local:5000/models/line"
DIGEST = f"sha256:{'ab' * 32}"
PAYLOAD = make_payload(REPOSITORY, DIGEST)
STATEMENT = pre_authentication_encoding(STATEMENT_MEDIA_TYPE, make_statement(REPOSITORY, DIGEST))
CURRENT, PREVIOUS = fresh_secret(b"bWFya2VkIHBhc3N3b3Jk"), fresh_secret()
MARK = b"bWFya2VkIGtleSBieXRlcw"
"""Stands where secrets stand: it must show up nowhere."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[SignerSite]:
    async with signer_site(tmp_path) as site:
        await site.server.put_secret("current", CURRENT)
        yield site


def sign_path(secret: dict[str, bytes] = CURRENT) -> str:
    return f"{SIGN_PATH}?key={load_public_key(secret['cosign.pub']).fingerprint}"


def demand_of(secret: dict[str, bytes]) -> Demand:
    authority = Authority("one", (load_public_key(secret["cosign.pub"]),))
    return Demand((authority,), platforms_signed=True)


async def trouble_of(site: SignerSite) -> SupplyError:
    with pytest.raises(SupplyError) as raised:
        await site.keys().signers()
    return raised.value


# --- signing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [PAYLOAD, STATEMENT], ids=["payload", "statement"])
async def test_the_operator_gets_a_signature_and_never_the_key(site: SignerSite, message: bytes) -> None:
    (signer,) = await site.keys().signers()
    signature = await signer.sign(message)
    assert signer.public_key == load_public_key(CURRENT["cosign.pub"])
    assert signer.public_key.verifies(signature, message)
    assert await signer.sign(message) == signature


def built(image: PushedImage) -> BuiltImage:
    """Give an image as a build would, which has told nothing about it."""
    return BuiltImage(str(image.index), ("linux/amd64", "linux/arm64"), build_key="1", report=ModelReport())


async def test_a_second_key_adds_its_signatures_to_what_the_first_signed(
    tmp_path: Path, client: RegistryClient, registry: RegistryServer, http_session: aiohttp.ClientSession
) -> None:
    registries = Registries(http_session, (registry.host,))
    image = await push_image(client, Reference(registry.host, "signer/rotation"))
    built = BuiltImage(str(image.index), (), build_key="", report=ModelReport())

    async def signed_by() -> list[str]:
        return [
            name
            for name, secret in {"current": CURRENT, "previous": PREVIOUS}.items()
            if isinstance(await verify_image(client, image.index, demand_of(secret)), Trusted)
        ]

    async with signer_site(tmp_path, ("previous",)) as site:
        await site.server.put_secret("previous", PREVIOUS)
        await ImageSigner(site.keys(), registries).sign(built, {})
        assert await signed_by() == ["previous"]

    async with signer_site(tmp_path, ("current", "previous")) as site:
        await site.server.put_secret("current", CURRENT)
        await site.server.put_secret("previous", PREVIOUS)
        signer = ImageSigner(site.keys(), registries)
        assert len(await signer.fingerprints()) == 2
        assert await signer.renew(built.image, {})
        assert await signed_by() == ["current", "previous"]

        # What none of our keys signed is none of our business, whatever a status says.
        stranger = await push_image(client, Reference(registry.host, "signer/stranger"), b"x")
        assert not await signer.renew(str(stranger.index), {})
        verdict = await verify_image(client, stranger.index, demand_of(CURRENT))
        assert isinstance(verdict, Untrusted)
        assert verdict.reason is Reason.UNSIGNED


async def test_many_at_once_are_all_signed(site: SignerSite) -> None:
    (signer,) = await site.keys().signers()
    messages = [make_payload(REPOSITORY, f"sha256:{number:064x}") for number in range(40)]
    signatures = await asyncio.gather(*map(signer.sign, messages))
    assert all(map(signer.public_key.verifies, signatures, messages))


# --- who may ask ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "status", "reason"),
    [(None, 401, "NotAuthenticated"), ("stolen", 401, "NotAuthenticated"), ("other", 403, "NotAllowed")],
)
@pytest.mark.parametrize(("method", "path"), [("POST", sign_path()), ("GET", KEYS_PATH)])
async def test_nobody_but_the_operator_is_answered(
    site: SignerSite, token: str | None, status: int, reason: str, method: str, path: str
) -> None:
    site.server.tokens["other"] = f"system:serviceaccount:{NAMESPACE}:edgemodel-admission"
    site.server.tokens["namesake"] = "system:serviceaccount:plant-a:edgemodel-operator"
    answered, body = await site.ask(method, path, token=token, body=PAYLOAD if method == "POST" else None)
    assert (answered, body["reason"]) == (status, reason)
    assert "signature" not in body
    assert (await site.ask(method, path, token="namesake"))[0] == 403
    assert secret_path("current") not in {path for _, path in site.server.calls}


async def test_no_caller_is_believed_while_the_api_server_is_away(site: SignerSite) -> None:
    site.server.refuse["POST", "/apis/authentication.k8s.io"] = 500
    status, body = await site.ask("POST", sign_path(), body=PAYLOAD)
    assert (status, body["reason"]) == (503, "KubernetesUnavailable")
    site.server.refuse.clear()
    assert (await site.ask("POST", sign_path(), body=PAYLOAD))[0] == 200


# --- what is refused --------------------------------------------------------------------------------------


async def test_what_is_no_document_of_ours_is_refused_for_good(site: SignerSite) -> None:
    (signer,) = await site.keys().signers()
    with pytest.raises(SupplyError, match="the signer refuses") as raised:
        await signer.sign(b"a certificate signing request")
    assert (raised.value.reason, raised.value.needs_person) == ("SigningRefused", True)


async def test_other_repositories_are_refused_with_what_to_write(tmp_path: Path) -> None:
    async with signer_site(tmp_path, repositories=("registry.plant-b.local/**",)) as site:
        await site.server.put_secret("current", CURRENT)
        (signer,) = await site.keys().signers()
        with pytest.raises(SupplyError, match=r"signing\.repositories"):
            await signer.sign(PAYLOAD)


async def test_a_message_that_is_too_large_is_refused_unread(site: SignerSite) -> None:
    status, body = await site.ask("POST", sign_path(), body=b"x" * (MAX_MESSAGE_BYTES + 1))
    assert (status, body["reason"]) == (413, "TooLarge")


async def test_a_key_that_does_not_sign_now_is_named(site: SignerSite) -> None:
    for path in (sign_path(PREVIOUS), SIGN_PATH):
        status, body = await site.ask("POST", path, body=PAYLOAD)
        assert (status, body["reason"]) == (404, "UnknownKey")


# --- trouble with keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "reason", "says"),
    [
        (None, "SigningKeyNotFound", "edgemodel keygen"),
        ({"cosign.key": MARK}, "SigningKeyInvalid", "has no field cosign.pub"),
        ({**CURRENT, "cosign.password": MARK}, "SigningKeyInvalid", "line break"),
        ({**CURRENT, "cosign.key": MARK}, "SigningKeyInvalid", "not exactly one PEM block"),
    ],
    ids=["missing", "field", "password", "corrupt"],
)
async def test_case_68b_key_trouble_reaches_the_operator_and_ends_with_the_trouble(
    site: SignerSite,
    caplog: pytest.LogCaptureFixture,
    secret: dict[str, bytes] | None,
    reason: str,
    says: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    (signer,) = await site.keys().signers()
    await site.server.delete(secret_path("current"))
    if secret is not None:
        await site.server.put_secret("current", secret)

    for raised in (await trouble_of(site), await trouble_of(site)):
        assert (raised.reason, raised.needs_person) == (reason, True)
        assert says in str(raised)
        assert f"{NAMESPACE}/current" in str(raised)
    with pytest.raises(SupplyError) as refused:
        await signer.sign(PAYLOAD)
    assert (refused.value.reason, refused.value.needs_person) == (reason, True)

    await site.server.put_secret("current", CURRENT)
    assert await signer.sign(PAYLOAD)
    told = [caplog.text, *(json.dumps(vars(record), default=str) for record in caplog.records)]
    told += [await site.metrics(), json.dumps([o for p, o in site.server.objects.items() if "/events/" in p])]
    for hidden in (MARK, CURRENT["cosign.key"][60:120], CURRENT["cosign.password"], b"token-of-the"):
        assert not [text for text in told if hidden.decode() in text], hidden


async def test_an_api_server_that_is_away_is_tried_again_and_blamed_on_no_person(site: SignerSite) -> None:
    site.server.refuse["GET", secret_path("current")] = 500
    raised = await trouble_of(site)
    assert (raised.reason, raised.needs_person) == ("SignerUnavailable", False)


async def test_a_command_signs_beside_the_secrets(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    program = "openssl pkeyutl -sign -inkey key.pem | base64"
    public = LocalKey(key).public_key
    command = SigningCommand(
        argv=("sh", "-c", f"cd {tmp_path} && cat > digest && {program.replace('-sign', '-sign -in digest')}"),
        public_key=public.pem.decode(),
    )
    async with signer_site(tmp_path, command=command) as site:
        await site.server.put_secret("current", CURRENT)
        outside, inside = await site.keys().signers()
        assert (outside.public_key, inside.public_key) == (public, load_public_key(CURRENT["cosign.pub"]))
        assert public.verifies(await outside.sign(PAYLOAD), PAYLOAD)
        (tmp_path / "key.pem").unlink()
        with pytest.raises(SupplyError, match="signer command sh") as raised:
            await outside.sign(PAYLOAD)
        assert (raised.value.reason, raised.value.needs_person) == ("SignerUnavailable", False)


async def test_a_command_with_a_key_of_no_use_is_told_and_ends_no_program(tmp_path: Path) -> None:
    command = SigningCommand(argv=("sign",), public_key="no key")
    async with signer_site(tmp_path, command=command) as site:
        await site.server.put_secret("current", CURRENT)
        raised = await trouble_of(site)
        assert (raised.reason, raised.needs_person) == ("SigningKeyInvalid", True)
        assert "signing.command" in str(raised)


# --- outages -------------------------------------------------------------------------------------------


async def test_a_signer_that_is_away_is_tried_again(site: SignerSite) -> None:
    (signer,) = await site.keys().signers()
    await site.stop()
    with pytest.raises(SupplyError, match="cannot be asked") as raised:
        await signer.sign(PAYLOAD)
    assert (raised.value.reason, raised.value.needs_person) == ("SignerUnavailable", False)
    await site.start()
    assert await signer.sign(PAYLOAD)


async def test_a_signer_with_new_certificates_is_believed_after_its_config_map_says_so(
    site: SignerSite,
) -> None:
    (signer,) = await site.keys().signers()
    await site.stop()
    old = site.server.objects[config_map_path()]["data"]["ca.crt"]
    await site.server.put(secret_path("edgemodel-signer-tls"), {"type": "Opaque"})
    await site.start()
    assert site.server.objects[config_map_path()]["data"]["ca.crt"] != old
    assert await signer.sign(PAYLOAD)


async def test_somebody_with_another_certificate_is_not_sent_our_token(site: SignerSite) -> None:
    (signer,) = await site.keys().signers()
    stranger = next_material(None, site.host, datetime.now(UTC) - timedelta(hours=1))
    await site.server.put(config_map_path(), {"data": {"ca.crt": stranger.ca_bundle.decode()}})
    site.server.calls.clear()
    fresh = site.keys()
    with pytest.raises(SupplyError, match="CERTIFICATE_VERIFY_FAILED"):
        await fresh.signers()
    assert not [path for method, path in site.server.calls if method == "POST"]
    assert signer


@pytest.mark.parametrize("data", [None, {}, {"ca.crt": ""}, {"ca.crt": "no certificate"}])
async def test_without_a_certificate_to_accept_nobody_is_asked(
    site: SignerSite, data: dict[str, str] | None
) -> None:
    await site.server.delete(config_map_path())
    if data is not None:
        await site.server.put(config_map_path(), {"data": data})
    raised = await trouble_of(site)
    assert raised.reason == "SignerUnavailable"
    assert "does the Deployment edgemodel-signer run?" in str(raised)


async def test_a_token_that_the_kubelet_replaced_is_read_anew(site: SignerSite) -> None:
    keys = site.keys()
    site.server.tokens = {"second": OPERATOR}
    with pytest.raises(SupplyError, match="not a valid one"):
        await keys.signers()
    site.token_file.write_text("second\n")
    assert await keys.signers()
    site.token_file.unlink()
    with pytest.raises(SupplyError, match=r"cannot be read from .*token: FileNotFoundError"):
        await keys.signers()


# --- what is told ------------------------------------------------------------------------------------------


async def test_each_signature_and_refusal_leaves_a_line_and_an_event(
    site: SignerSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (signer,) = await site.keys().signers()
    fingerprint = signer.public_key.fingerprint
    for message in (PAYLOAD, STATEMENT, STATEMENT):
        await signer.sign(message)
    await site.ask("POST", sign_path(), body=b"{}")

    signed = [vars(record) for record in caplog.records if record.message == "Signed"]
    assert [(line["kind"], line["predicateType"]) for line in signed] == [
        ("simple-signing", ""),
        *2 * [("signature", "https://sigstore.dev/cosign/sign/v1")],
    ]
    for line in signed:
        assert (line["caller"], line["key"]) == (OPERATOR, fingerprint)
        assert (line["repository"], line["digest"]) == (REPOSITORY, DIGEST)
    (refused,) = [vars(record) for record in caplog.records if record.message == "Refused to sign"]
    assert (refused["caller"], refused["reason"]) == (OPERATOR, "NotADocument")

    metrics = await site.metrics()
    assert 'edgemodel_signer_signatures_total{kind="signature",result="signed"} 2.0' in metrics
    assert 'edgemodel_signer_signatures_total{kind="unread",result="refused"} 1.0' in metrics
    assert 'edgemodel_signer_key_problems_total{problem="WrongPassword"} 0.0' in metrics

    events = f"/api/v1/namespaces/{NAMESPACE}/events/"
    while len(found := [item for path, item in site.server.objects.items() if path.startswith(events)]) < 2:
        await asyncio.sleep(0.01)
    event, refusal = found
    assert (event["reason"], event["involvedObject"]["name"]) == ("ImageSigned", "edgemodel-operator")
    assert (refusal["reason"], refusal["involvedObject"]["name"]) == ("SigningRefused", "edgemodel-operator")
    assert f"{REPOSITORY}@{DIGEST}" in event["message"]
    assert fingerprint in event["message"]


async def test_the_answer_holds_nothing_but_the_signature(site: SignerSite) -> None:
    status, body = await site.ask("POST", sign_path(), body=PAYLOAD)
    assert status == 200
    assert body.keys() == {"key", "signature"}
    key = load_public_key(CURRENT["cosign.pub"])
    assert key.verifies(base64.b64decode(body["signature"]), PAYLOAD)
    _, listed = await site.ask("GET", KEYS_PATH)
    assert listed == {"keys": [{"key": key.fingerprint, "pem": key.pem.decode()}]}
