"""`edgemodel verify`: keys and policies from files, the steps that were made, and what the exit code says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.oci.descriptor import OCI_INDEX, Descriptor
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import simple_signing
from edgemodel_operator.signing.keys import LocalKey, generate_key_pair, load_private_key
from edgemodel_operator.signing.sign import sign_image
from support.command_line import Ended, edgemodel, write_documents
from support.registry import FaultyRegistry, RegistryServer, fail_times
from support.signed_images import PushedImage, push_image


@dataclass(frozen=True)
class Desk:
    """A folder with a key, and an image in the registry under a tag of its own."""

    folder: Path
    registry: RegistryServer
    client: RegistryClient
    image: PushedImage
    tagged: Reference
    key: LocalKey

    @property
    def public(self) -> str:
        return str(self.folder / "cosign.pub")

    async def verify(self, *arguments: str, image: str = "") -> Ended:
        return await edgemodel(
            *("verify", "--plain-http", self.registry.host), *arguments, image or str(self.tagged)
        )

    def policy(self, name: str, keys: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
        """Give a TrustPolicy for the images of this repository."""
        return {
            "apiVersion": "edgemodel.dev/v1alpha1",
            "kind": "TrustPolicy",
            "metadata": {"name": name},
            "spec": {
                "images": [self.image.index.name],
                "authorities": [{"name": "plant", "keys": keys}],
                **spec,
            },
        }

    @property
    def inline(self) -> list[dict[str, Any]]:
        return [{"data": Path(self.public).read_text()}]

    def write(self, *documents: dict[str, Any]) -> str:
        return str(write_documents(self.folder / "policies.yaml", *documents))


@pytest.fixture
async def desk(tmp_path: Path, client: RegistryClient, registry: RegistryServer, own_name: str) -> Desk:
    name = Reference(registry.host, f"verified/{own_name}", tag="1")
    image = await push_image(client, name)
    index = await client.get_manifest(image.index)
    await client.put_manifest(name, index.body, OCI_INDEX)
    pair = generate_key_pair(b"")
    (tmp_path / "cosign.pub").write_bytes(pair.public_pem)
    return Desk(tmp_path, registry, client, image, name, load_private_key(pair.private_pem, b""))


async def test_each_step_is_printed_with_what_was_found(desk: Desk) -> None:
    unsigned = await desk.verify("--key", desk.public)
    assert unsigned.code == 1
    assert "it is not signed" in unsigned.out.splitlines()[-1]
    await sign_image(desk.client, desk.image.index, [desk.key])
    trusted = await desk.verify("--key", desk.public)
    assert trusted.code == 0, trusted.err
    lines = trusted.out.splitlines()
    assert lines[0] == str(desk.image.index)
    assert lines[-1] == f"  trusted: vouched for by {desk.public}"
    numbers = [int(line.split()[0]) for line in lines if line[:4].strip().isdigit()]
    assert numbers == sorted(numbers)
    assert set(numbers) >= {1, 2, 3, 4, 8, 9, 10, 12}


async def test_json_has_the_same_steps(desk: Desk) -> None:
    await sign_image(desk.client, desk.image.index, [desk.key])
    answered = await desk.verify("--key", desk.public, "--output", "json")
    document = answered.json()
    assert document["state"] == "Trusted"
    assert document["image"] == str(desk.image.index)
    (check,) = document["checks"]
    assert check["by"] == [desk.public]
    assert all(step["outcome"] in {"holds", "ignored", "not asked"} for step in check["steps"])


async def test_every_policy_that_matches_must_hold(desk: Desk) -> None:
    await sign_image(desk.client, desk.image.index, [desk.key])
    stranger = generate_key_pair(b"").public_pem.decode()
    good = desk.policy("good", desk.inline)
    other = desk.policy("other", [{"data": stranger}])
    elsewhere = desk.policy("elsewhere", [{"data": stranger}], namespaces=["far"])
    trusted = await desk.verify("--policy", desk.write(good, elsewhere))
    assert trusted.code == 0, trusted.out
    assert "elsewhere" not in trusted.out
    both = await desk.verify("--policy", desk.write(good, other))
    assert both.code == 1
    assert 'TrustPolicy "good"' in both.out
    assert "none of the keys" in both.out
    audited = await desk.verify("--policy", desk.write(desk.policy("a", [{"data": stranger}], mode="Audit")))
    assert audited.code == 1
    assert "Audit mode" in audited.out


async def test_an_image_that_no_policy_speaks_about_is_untrusted(desk: Desk) -> None:
    policy = desk.policy("far", desk.inline, images=["registry.plant-a.local/**"])
    answered = await desk.verify("--policy", desk.write(policy))
    assert answered.code == 1
    assert "no TrustPolicy matches" in answered.out


async def test_keys_in_secrets_are_given_by_name_or_refused_with_the_way(desk: Desk) -> None:
    await sign_image(desk.client, desk.image.index, [desk.key])
    policy = desk.policy("models", [{"secretRef": {"name": "plant-key"}}])
    refused = await desk.verify("--policy", desk.write(policy))
    assert refused.code == 2
    assert "--secret plant-key=FILE" in refused.err
    given = await desk.verify("--policy", desk.write(policy), "--secret", f"plant-key={desk.public}")
    assert given.code == 0, given.out
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "plant-key"},
        "stringData": {"cosign.pub": Path(desk.public).read_text()},
    }
    assert (await desk.verify("--policy", desk.write(policy, secret))).code == 0


async def test_a_trusted_root_that_only_the_cluster_has_is_asked_for(desk: Desk) -> None:
    policy = desk.policy("ci", desk.inline)
    policy["spec"]["authorities"] = [
        {
            "name": "ci",
            "keyless": {
                "issuer": "https://ci.plant-a.local",
                "subject": "https://ci.plant-a.local/models",
                "trustedRoot": {"name": "plant-root"},
            },
        }
    ]
    refused = await desk.verify("--policy", desk.write(policy))
    assert refused.code == 2
    assert "--trusted-root plant-root=FILE" in refused.err
    root = desk.folder / "root.json"
    root.write_text("{}")
    given = await desk.verify("--policy", desk.write(policy), "--trusted-root", str(root))
    assert given.code == 3, given.out
    assert "the trusted root cannot be read" in given.out


async def test_copies_count_where_that_is_asked(desk: Desk) -> None:
    await sign_image(desk.client, desk.image.index, [desk.key])
    copy = Reference(desk.registry.host, f"{desk.image.index.repository}-copy", digest=desk.image.digest)
    await push_image(desk.client, copy)
    stored = await desk.client.get_manifest(
        desk.image.index.with_tag(simple_signing.signature_tag(desk.image.digest))
    )
    tag = copy.with_tag(simple_signing.signature_tag(desk.image.digest))
    for part in (stored.json()["config"], *stored.json()["layers"]):
        content = await desk.client.get_blob(desk.image.index, part["digest"], max_bytes=10**6)
        await desk.client.put_blob(copy, content, Descriptor.of(part["mediaType"], content))
    await desk.client.put_manifest(tag, stored.body, stored.descriptor.media_type)
    refused = await desk.verify("--key", desk.public, image=str(copy))
    assert refused.code == 1
    assert "is for the repository" in refused.out
    accepted = await desk.verify("--key", desk.public, "--accept-copies", image=str(copy))
    assert accepted.code == 0, accepted.out


async def test_what_could_not_be_found_out_is_neither_yes_nor_no(desk: Desk, faulty: FaultyRegistry) -> None:
    faulty.faults.append(fail_times(1000, 403, part="/referrers/"))
    image = f"{faulty.host}/{desk.image.index.repository}@{desk.image.digest}"
    for output in ("text", "json"):
        answered = await edgemodel(
            *("verify", "--plain-http", faulty.host, "--key", desk.public, "--output", output, image)
        )
        assert answered.code == 3, answered.out
        assert "nknown" in answered.out
    away = await edgemodel("verify", "--plain-http", "127.0.0.1:1", "--key", desk.public, "127.0.0.1:1/a:1")
    assert away.code == 3
    gone = await desk.verify("--key", desk.public, image=str(desk.tagged.with_tag("2")))
    assert gone.code == 3
    assert "does not exist" in gone.err


async def test_a_policy_is_checked_as_at_apply(desk: Desk) -> None:
    wrong = await desk.verify("--policy", desk.write(desk.policy("models", desk.inline, treshold=1)))
    assert wrong.code == 2
    assert "spec.treshold: unknown field" in wrong.err
