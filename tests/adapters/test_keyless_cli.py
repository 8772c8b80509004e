"""`edgemodel sign` and `edgemodel verify` without a key, with real services for keyless signing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from support.command_line import Ended, edgemodel, write_documents
from support.registry import RegistryServer
from support.signed_images import PushedImage, push_image
from support.sigstore_services import KeylessServices, keyless_services


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeylessServices]:
    with keyless_services(tmp_path_factory.mktemp("keyless")) as running:
        yield running


@pytest.fixture
async def image(client: RegistryClient, registry: RegistryServer, tmp_path: Path) -> PushedImage:
    return await push_image(
        client, Reference(registry.host, f"keyless-cli/{tmp_path.name.replace('_', '-')}")
    )


@pytest.fixture
def folder(tmp_path: Path, services: KeylessServices) -> Path:
    (tmp_path / "token").write_text(services.login.token() + "\n")
    (tmp_path / "trust_config.json").write_bytes(services.trust_config)
    (tmp_path / "trusted_root.json").write_bytes(services.trusted_root)
    return tmp_path


async def sign(folder: Path, image: PushedImage, *services: str) -> Ended:
    host = image.index.registry
    token = str(folder / "token")
    return await edgemodel(
        "sign", "--identity-token", token, *services, "--plain-http", host, str(image.index)
    )


async def verify(folder: Path, image: PushedImage, services: KeylessServices, subject: str) -> Ended:
    policy = {
        "apiVersion": "edgemodel.dev/v1alpha1",
        "kind": "TrustPolicy",
        "metadata": {"name": "models-from-ci"},
        "spec": {
            "images": ["**"],
            "authorities": [
                {
                    "name": "ci",
                    "keyless": {
                        "issuer": services.login.url,
                        "subject": subject,
                        "trustedRoot": {"name": "plant-a-root"},
                    },
                }
            ],
        },
    }
    file = write_documents(folder / "policy.yaml", policy)
    root = f"plant-a-root={folder / 'trusted_root.json'}"
    return await edgemodel(
        *("verify", "--policy", str(file), "--trusted-root", root),
        *("--plain-http", image.index.registry, str(image.index)),
    )


async def test_a_job_signs_with_its_token_and_a_policy_accepts_it(
    folder: Path, image: PushedImage, services: KeylessServices
) -> None:
    signed = await sign(folder, image, "--trust-config", str(folder / "trust_config.json"))
    assert signed.code == 0, signed.err
    assert str(image.index.digest) in signed.out
    ours = await verify(folder, image, services, services.login.subject)
    assert ours.code == 0, ours.out + ours.err
    others = await verify(folder, image, services, f"{services.login.subject}/2")
    assert others.code == 1, others.out + others.err


async def test_services_may_be_named_by_their_addresses(
    folder: Path, image: PushedImage, services: KeylessServices
) -> None:
    named = ("--trusted-root", str(folder / "trusted_root.json"), "--fulcio-url", services.fulcio)
    named += ("--rekor-url", services.rekor, "--timestamp-url", services.tsa)
    signed = await sign(folder, image, *named)
    assert signed.code == 0, signed.err
    assert (await verify(folder, image, services, services.login.subject)).code == 0


async def test_without_services_nothing_is_contacted(folder: Path, image: PushedImage) -> None:
    refused = await sign(folder, image)
    assert refused.code == 2
    assert "--trust-config" in refused.err


async def test_a_token_that_is_refused_is_not_shown(
    folder: Path, image: PushedImage, services: KeylessServices
) -> None:
    token = services.login.token()
    forged = f"{token[:-8]}{'A' * 8}"
    (folder / "token").write_text(forged)
    refused = await sign(folder, image, "--trust-config", str(folder / "trust_config.json"))
    assert refused.code == 1
    assert "identity token" in refused.err
    assert forged.split(".")[1] not in refused.out + refused.err
