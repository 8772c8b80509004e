"""Signing without a key, with a real Fulcio, Rekor and timestamp authority; and with cosign, both ways."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cluster.tools import tool
from edgemodel_operator.adapters.policy_verifier import PolicyVerifier
from edgemodel_operator.api.trustpolicy import TrustPolicySpec
from edgemodel_operator.cli.local_authorities import LocalObjects
from edgemodel_operator.core.trust import Policy
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import keyless_sign
from edgemodel_operator.signing.attest import Attestation
from edgemodel_operator.signing.demand import Authority, Demand, PredicateCheck, WantedAttestation
from edgemodel_operator.signing.errors import BadIdentity, NotSignedKeyless
from edgemodel_operator.signing.keyless import KeylessIdentity, load_identity
from edgemodel_operator.signing.keyless_services import describe_services, load_services
from edgemodel_operator.signing.keyless_sign import (
    KeylessSigner,
    attest_digest_keyless,
    sign_image_keyless,
)
from edgemodel_operator.signing.stored import read_signatures
from edgemodel_operator.signing.verdict import Format, Reason, Trusted, Untrusted
from edgemodel_operator.signing.verify import verify_image
from support.registry import free_port
from support.signed_images import PushedImage, push_image
from support.sigstore_offline import Offline, verify_offline
from support.sigstore_services import KeylessServices, LoginService, keyless_services
from support.sigstore_site import Json, Site, period

PROVENANCE = Attestation("https://slsa.dev/provenance/v1", b'{"buildDefinition":{"buildType":"model"}}')


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeylessServices]:
    with keyless_services(tmp_path_factory.mktemp("keyless")) as running:
        yield running


@pytest.fixture(scope="module")
def identity(services: KeylessServices) -> KeylessIdentity:
    return identity_under(services, services.trusted_root)


def identity_under(services: KeylessServices, trusted_root: bytes) -> KeylessIdentity:
    return load_identity(trusted_root, issuer=services.login.url, subject=services.login.subject)


@pytest.fixture
def signer(services: KeylessServices) -> KeylessSigner:
    return KeylessSigner(load_services(services.trust_config), services.login.token())


@pytest.fixture
def client(http_session: aiohttp.ClientSession, host: str) -> RegistryClient:
    return RegistryClient(http_session, plain_http={host})


@pytest.fixture
async def image(client: RegistryClient, host: str, own_name: str) -> PushedImage:
    return await push_image(client, Reference(host, f"keyless/{own_name}"))


def demand(identity: KeylessIdentity, *, any_repository: bool = False) -> Demand:
    plant = Authority("ci", identities=(identity,))
    return Demand((plant,), any_repository=any_repository, platforms_signed=True)


async def stored(client: RegistryClient, image: Reference) -> list[bytes]:
    assert image.digest is not None
    found = await read_signatures(client, image, image.digest, Format.BUNDLE)
    return [one.bundle for one in found.candidates]


@dataclass(frozen=True)
class Cosign:
    """Cosign 3 with a folder that holds what the site publishes."""

    folder: Path
    services: KeylessServices

    async def run(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            str(tool("cosign-v3")),
            *arguments,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(120):
            said, _ = await process.communicate()
        assert process.returncode == 0, f"cosign {arguments}: {said.decode()}"
        return said.decode()

    async def verify(self, command: str, image: Reference, *options: str) -> str:
        login = self.services.login
        return await self.run(
            *(command, "--trusted-root", "trusted_root.json", "--use-signed-timestamps"),
            *("--certificate-identity", login.subject, "--certificate-oidc-issuer", login.url),
            *(*options, str(image)),
        )

    async def sign(self, image: Reference, *options: str) -> None:
        (self.folder / "token").write_text(self.services.login.token())
        await self.run(
            *("sign", "--identity-token", "token", "--signing-config", "signing_config.json"),
            *("--trusted-root", "trusted_root.json", "--yes", *options, str(image)),
        )


@pytest.fixture
def cosign(tmp_path: Path, services: KeylessServices) -> Cosign:
    (tmp_path / "trusted_root.json").write_bytes(services.trusted_root)
    (tmp_path / "signing_config.json").write_bytes(services.signing_config)
    return Cosign(tmp_path, services)


async def test_an_image_is_signed_and_verified_for_this_repository(
    client: RegistryClient, image: PushedImage, signer: KeylessSigner, identity: KeylessIdentity
) -> None:
    signed = await sign_image_keyless(client, image.index, signer)
    assert [one.digest for one in signed] == [image.index.digest, *(one.digest for one in image.children)]
    verdict = await verify_image(client, image.index, demand(identity))
    assert isinstance(verdict, Trusted)
    assert all(one.signatures[0].binds_repository for one in verdict.evidence)
    assert verdict.by == ("ci",)


async def test_signing_again_adds_nothing_and_contacts_nobody(
    client: RegistryClient, image: PushedImage, signer: KeylessSigner, services: KeylessServices
) -> None:
    await sign_image_keyless(client, image.index, signer)
    nowhere = f"http://127.0.0.1:{free_port()}"
    unreachable = describe_services(services.trusted_root, fulcio=nowhere, rekor=nowhere, timestamps=nowhere)
    later = KeylessSigner(load_services(unreachable), services.login.token())
    again = await sign_image_keyless(client, image.index, later)
    assert not any(one.added for one in again)
    assert len(await stored(client, image.index)) == 1


async def test_case_17_cosign_3_verifies_what_we_sign(
    client: RegistryClient, image: PushedImage, signer: KeylessSigner, cosign: Cosign
) -> None:
    await sign_image_keyless(client, image.index, signer)
    for reference in (image.index, *image.children):
        await cosign.verify("verify", reference)


async def test_case_17_we_verify_what_cosign_3_signs(
    client: RegistryClient, image: PushedImage, identity: KeylessIdentity, cosign: Cosign
) -> None:
    # Told to, cosign writes the annotation that binds a signature to its repository.
    await cosign.sign(image.index, "--recursive", "-a", f"dev.edgemodel.repository={image.index.name}")
    assert isinstance(await verify_image(client, image.index, demand(identity)), Trusted)


async def test_a_signature_of_cosign_for_no_repository_counts_where_copies_do(
    client: RegistryClient, image: PushedImage, identity: KeylessIdentity, cosign: Cosign
) -> None:
    await cosign.sign(image.children[0])
    refused = await verify_image(client, image.children[0], demand(identity))
    assert isinstance(refused, Untrusted)
    assert refused.reason is Reason.OTHER_REPOSITORY
    accepted = await verify_image(client, image.children[0], demand(identity, any_repository=True))
    assert isinstance(accepted, Trusted)


async def test_attestations_are_made_and_verified_by_us_and_by_cosign(
    client: RegistryClient,
    image: PushedImage,
    signer: KeylessSigner,
    identity: KeylessIdentity,
    cosign: Cosign,
) -> None:
    child = image.children[0]
    (signed,) = await sign_image_keyless(client, child, signer)
    assert await attest_digest_keyless(client, child, signed.descriptor, [PROVENANCE], signer)
    assert not await attest_digest_keyless(client, child, signed.descriptor, [PROVENANCE], signer)
    check = PredicateCheck('predicate.buildDefinition.buildType == "model"', "is no model")
    wanted = WantedAttestation("origin", PROVENANCE.predicate_type, checks=(check,))
    plant = Authority("ci", identities=(identity,))
    assert isinstance(await verify_image(client, child, Demand((plant,), attestations=(wanted,))), Trusted)
    await cosign.verify("verify-attestation", child, "--type", PROVENANCE.predicate_type)


async def test_a_policy_finds_the_trusted_root_in_its_config_map(
    client: RegistryClient, image: PushedImage, signer: KeylessSigner, services: KeylessServices
) -> None:
    def policy(subject: str) -> Policy:
        keyless = {
            "issuer": services.login.url,
            "subjectRegExp": subject,
            "trustedRoot": {"name": "plant-a-root"},
        }
        spec = {"images": ["**"], "authorities": [{"name": "ci", "keyless": keyless}]}
        return Policy("models-from-ci", TrustPolicySpec.model_validate(spec))

    ours, others = policy(".*/models/press/[a-z]+"), policy(".*/models/press")
    pinned = LocalObjects(config_maps={"plant-a-root": {"trusted_root.json": services.trusted_root}})
    verifier = PolicyVerifier(pinned.store([ours, others]))
    await sign_image_keyless(client, image.index, signer)
    assert (await verifier.verify(client, image.index, ours)).trusted
    assert not (await verifier.verify(client, image.index, others)).trusted


async def test_an_attestation_alone_is_no_signature(
    client: RegistryClient, image: PushedImage, signer: KeylessSigner, identity: KeylessIdentity
) -> None:
    child = image.children[0]
    subject = (await client.get_manifest(child, max_bytes=100_000)).descriptor
    await attest_digest_keyless(client, child, subject, [PROVENANCE], signer)
    verdict = await verify_image(client, child, demand(identity))
    assert isinstance(verdict, Untrusted)
    assert verdict.reason is Reason.ONLY_ATTESTATION


HOUR = timedelta(hours=1)


@pytest.mark.parametrize("kind", ["certificateAuthorities", "tlogs", "ctlogs", "timestampAuthorities"])
async def test_case_16_nothing_counts_outside_its_period(
    services: KeylessServices, signer: KeylessSigner, kind: str
) -> None:
    bundle = await signer.sign(STATEMENT)
    now = datetime.now(UTC)

    def counts(start: datetime, end: datetime) -> bool:
        root: Json = json.loads(services.trusted_root)
        entry = root[kind][0]
        holder = entry.get("publicKey", entry)
        holder["validFor"] = period(start, end)
        return identity_under(services, json.dumps(root).encode()).verifies(bundle)

    assert counts(now - HOUR, now + HOUR)
    assert not counts(now - 2 * HOUR, now - HOUR)
    assert not counts(now + HOUR, now + 2 * HOUR)


STATEMENT = (
    b'{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"https://x.plant-a.local/1",'
    b'"subject":[{"digest":{"sha256":"' + b"a" * 64 + b'"},"name":"x"}]}'
)


async def test_case_15_a_timestamp_or_entry_of_another_signature_does_not_count(
    signer: KeylessSigner, identity: KeylessIdentity
) -> None:
    one, other = [json.loads(await signer.sign(STATEMENT)) for _ in range(2)]
    assert identity.verifies(json.dumps(one).encode())
    for part in ("tlogEntries", "timestampVerificationData"):
        mixed = json.loads(json.dumps(one))
        mixed["verificationMaterial"][part] = other["verificationMaterial"][part]
        assert identity.refusal(json.dumps(mixed).encode())


async def test_case_15_a_timestamp_does_not_replace_the_log(
    signer: KeylessSigner, identity: KeylessIdentity
) -> None:
    bundle = json.loads(await signer.sign(STATEMENT))
    bundle["verificationMaterial"]["tlogEntries"] = []
    assert "exactly one log entry" in identity.refusal(json.dumps(bundle).encode())


async def test_case_18_verifying_a_timestamped_bundle_asks_no_network(
    tmp_path: Path, services: KeylessServices, signer: KeylessSigner
) -> None:
    bundle, login = await signer.sign(STATEMENT), services.login
    given = (tmp_path, services.trusted_root, login.url, login.subject, bundle)
    assert await asyncio.to_thread(verify_offline, *given) == Offline("", ())


async def test_a_forged_token_is_refused_by_the_authority_and_shown_to_nobody(
    client: RegistryClient,
    image: PushedImage,
    services: KeylessServices,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = LoginService(services.login.url, stranger).token()
    signer = KeylessSigner(load_services(services.trust_config), token)
    with pytest.raises(NotSignedKeyless, match=r"answered 400: .*identity token") as refused:
        await sign_image_keyless(client, image.index, signer)
    assert not await stored(client, image.index)
    for secret in (token, *token.split(".")[1:]):
        for shown in (str(refused.value), repr(refused.value), repr(signer), caplog.text):
            assert secret not in shown


async def test_a_good_token_is_shown_to_nobody_either(
    signer: KeylessSigner, services: KeylessServices, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = services.login.token()
    bundle = await KeylessSigner(load_services(services.trust_config), token).sign(STATEMENT)
    for secret in (token, *token.split(".")[1:]):
        assert secret not in caplog.text
        assert secret.encode() not in bundle


@pytest.mark.parametrize("gone", ["fulcio", "rekor", "timestamps"])
async def test_without_one_of_the_services_nothing_is_published(
    client: RegistryClient, image: PushedImage, services: KeylessServices, gone: str
) -> None:
    where = {"fulcio": services.fulcio, "rekor": services.rekor, "timestamps": services.tsa}
    where[gone] = f"http://127.0.0.1:{free_port()}"
    named = load_services(describe_services(services.trusted_root, **where))
    with pytest.raises(NotSignedKeyless):
        await sign_image_keyless(client, image.index, KeylessSigner(named, services.login.token()))
    assert not await stored(client, image.index)


async def test_a_service_that_never_answers_is_given_up(
    services: KeylessServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyless_sign, "PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nowhere = f"http://127.0.0.1:{silent.getsockname()[1]}"
        named = describe_services(
            services.trusted_root, fulcio=nowhere, rekor=services.rekor, timestamps=services.tsa
        )
        signer = KeylessSigner(load_services(named), services.login.token())
        with pytest.raises(NotSignedKeyless, match="did not answer within"):
            await signer.sign(STATEMENT)


async def test_what_would_not_verify_is_not_published(
    client: RegistryClient, image: PushedImage, services: KeylessServices
) -> None:
    root = json.loads(services.trusted_root)
    root["certificateAuthorities"] = json.loads(Site().trusted_root())["certificateAuthorities"]
    named = load_services(
        describe_services(
            json.dumps(root).encode(), fulcio=services.fulcio, rekor=services.rekor, timestamps=services.tsa
        )
    )
    with pytest.raises(NotSignedKeyless, match="does not verify under the trusted root"):
        await sign_image_keyless(client, image.index, KeylessSigner(named, services.login.token()))
    assert not await stored(client, image.index)


@pytest.mark.parametrize(
    "claims",
    [{"aud": "somebody-else"}, {"exp": datetime.now(UTC) - HOUR, "iat": datetime.now(UTC) - 2 * HOUR}],
)
def test_a_token_for_others_or_of_yesterday_is_refused_before_it_is_sent(
    services: KeylessServices, claims: dict[str, object]
) -> None:
    token = services.login.token(**claims)
    with pytest.raises(BadIdentity, match="for the audience 'sigstore' that has not expired") as refused:
        KeylessSigner(load_services(services.trust_config), token)
    assert token not in str(refused.value)
