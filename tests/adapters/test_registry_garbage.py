"""Removing a signed, described image from real registries: all of it, nothing else, killed at any request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.image_remover import TAGGED_ATTACHMENTS, ImageRemover
from edgemodel_operator.adapters.registries import Registries
from edgemodel_operator.api.edgemodel_status import VariantImage
from edgemodel_operator.core.annotations import BUILD_KEY
from edgemodel_operator.core.build_key import child_tag, index_tag
from edgemodel_operator.core.garbage import RemovalError
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST
from edgemodel_operator.oci.image import RuntimeSettings, make_image, make_index
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient, fallback_tag
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from support.images import AMD64, ARM64, attach, make_layer
from support.registry import Fault, faulty_registry
from support.registry_kinds import Kind, KnownRegistry, Way, start_kind

SIGNER = LocalKey(ec.generate_private_key(ec.SECP256R1()))
WAYS = [(kind, Way.PLAIN) for kind in Kind] + [
    (Kind.DISTRIBUTION_2, Way.TOKEN),
    (Kind.DISTRIBUTION_3, Way.TOKEN),
    (Kind.OCI_1_1, Way.BASIC),
]


@pytest.fixture(scope="module", params=WAYS, ids=", ".join)
def known(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KnownRegistry]:
    with start_kind(*request.param, tmp_path_factory.mktemp("known")) as registry:
        yield registry


@pytest.fixture(scope="module", params=list(Kind), ids=str)
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KnownRegistry]:
    with start_kind(request.param, Way.PLAIN, tmp_path_factory.mktemp("plain")) as registry:
        yield registry


@pytest.fixture
async def session(known: KnownRegistry) -> AsyncIterator[aiohttp.ClientSession]:
    async with known.session() as opened:
        yield opened


@pytest.fixture
def client(known: KnownRegistry, session: aiohttp.ClientSession) -> RegistryClient:
    return known.client(session)


@pytest.fixture
def ref(known: KnownRegistry, request: pytest.FixtureRequest) -> Reference:
    return Reference(known.host, f"garbage/{request.node.originalname.replace('_', '-')}")


def credentials_of(known: KnownRegistry) -> Mapping[str, Credential]:
    return {known.host: known.login} if known.login else {}


def remover(known: KnownRegistry, session: aiohttp.ClientSession) -> ImageRemover:
    return ImageRemover(Registries(session, () if known.ca_file else (known.host,)))


async def publish(
    client: RegistryClient, ref: Reference, key: str, *, platforms: int = 2, signed: bool = True
) -> tuple[VariantImage, set[str]]:
    """Push a model's image as a build does, sign it and describe it; gives it and all its digests.

    Not `signed`, it has something attached in both ways at its index alone, which takes less time.
    """
    build_key = key * 64
    layer, blob = make_layer("opt/model", b"shared by all versions")
    await client.put_blob(ref, blob, layer.descriptor)
    children = []
    for platform in (AMD64, ARM64)[:platforms]:
        image = make_image(
            platform, [layer], RuntimeSettings(entrypoint=["/serve"]), annotations={BUILD_KEY: build_key}
        )
        await client.put_blob(ref, image.config, image.config_descriptor)
        tag = ref.with_tag(child_tag(build_key, str(platform)))
        await client.put_manifest(tag, image.manifest, OCI_MANIFEST)
        children.append(image.descriptor)
    body = make_index(children, {BUILD_KEY: build_key})
    index = (await client.put_manifest(ref.with_tag(index_tag(build_key)), body, OCI_INDEX)).descriptor
    if signed:
        await sign_image(client, ref.with_digest(index.digest), [SIGNER])
        await attest_digest(client, ref, index, [Attestation("https://spdx.dev/Document", b"{}")], [SIGNER])
    else:
        body = make_index([], {"attached to": index.digest})
        await client.put_manifest(ref.with_tag(fallback_tag(index.digest) + ".sig"), body, OCI_INDEX)
    bill = await attach(client, ref, index, f"bill of materials of {key}")
    signature = await attach(client, ref, bill, f"signature of the bill of {key}")
    names = tuple(str(platform) for platform in (AMD64, ARM64)[:platforms])
    entry = VariantImage(
        variant="cpu", build_key=build_key, image=str(ref.with_digest(index.digest)), platforms=names
    )
    return entry, {index.digest, bill.digest, signature.digest, *(child.digest for child in children)}


async def leftovers(client: RegistryClient, image: VariantImage, digests: set[str]) -> list[str]:
    """Name everything of an image that the registry still gives out."""
    ref = parse_reference(image.image)
    tags = [index_tag(image.build_key)]
    tags += [child_tag(image.build_key, platform) for platform in image.platforms]
    tags += [fallback_tag(digest) + ending for digest in sorted(digests) for ending in TAGGED_ATTACHMENTS]
    places = [ref.with_digest(digest) for digest in sorted(digests)] + [ref.with_tag(tag) for tag in tags]
    found = [str(place) for place in places if await client.head_manifest(place) is not None]
    for digest in sorted(digests):
        listed = await client.list_referrers(ref, digest)
        found += [f"{entry.digest} of {digest}" for entry in listed]
    return found


async def test_an_image_goes_whole_and_alone(
    known: KnownRegistry, session: aiohttp.ClientSession, client: RegistryClient, ref: Reference
) -> None:
    old, old_digests = await publish(client, ref, "a")
    new, new_digests = await publish(client, ref, "b")
    before = await leftovers(client, new, new_digests)
    assert await leftovers(client, old, old_digests)
    assert await remover(known, session).remove(old, credentials_of(known))
    assert await leftovers(client, old, old_digests) == []
    assert await leftovers(client, new, new_digests) == before


async def test_an_image_that_is_gone_is_gone(
    known: KnownRegistry, session: aiohttp.ClientSession, client: RegistryClient, ref: Reference
) -> None:
    image, _ = await publish(client, ref, "a", platforms=1)
    for _ in range(2):
        assert await remover(known, session).remove(image, credentials_of(known))


async def test_another_image_under_our_digest_is_left(
    known: KnownRegistry, session: aiohttp.ClientSession, client: RegistryClient, ref: Reference
) -> None:
    """The status says another build key than the image itself: the image is somebody else's."""
    image, digests = await publish(client, ref, "a")
    before = await leftovers(client, image, digests)
    mistaken = image.model_copy(update={"build_key": "c" * 64})
    assert not await remover(known, session).remove(mistaken, credentials_of(known))
    assert await leftovers(client, image, digests) == before


async def test_an_image_of_others_under_our_tag_is_left(
    known: KnownRegistry, session: aiohttp.ClientSession, client: RegistryClient, ref: Reference
) -> None:
    ours, _ = await publish(client, ref, "a")
    theirs, _ = await publish(client, ref, "b")
    child = await client.get_manifest(ref.with_tag(child_tag(theirs.build_key, str(AMD64))))
    await client.put_manifest(ref.with_tag(child_tag(ours.build_key, str(AMD64))), child.body, OCI_MANIFEST)
    assert await remover(known, session).remove(ours, credentials_of(known))
    assert await client.head_manifest(ref.with_digest(child.descriptor.digest)) is not None


async def test_a_list_of_referrers_that_names_strangers_costs_them_nothing(
    known: KnownRegistry, session: aiohttp.ClientSession, client: RegistryClient, ref: Reference
) -> None:
    ours, _ = await publish(client, ref, "a", platforms=1)
    theirs, digests = await publish(client, ref, "b", platforms=1)
    before = await leftovers(client, theirs, digests)
    digest = parse_reference(ours.image).digest or ""
    listed = [await client.head_manifest(ref.with_digest(item)) for item in sorted(digests)]
    lie = make_index([item for item in listed if item is not None])
    await client.put_manifest(ref.with_tag(fallback_tag(digest)), lie, OCI_INDEX)
    assert await remover(known, session).remove(ours, credentials_of(known))
    assert await leftovers(client, theirs, digests) == before


async def test_a_removal_that_was_killed_is_finished_by_the_next(plain: KnownRegistry) -> None:
    """It ends before each deletion in turn; whatever was deleted until then, all is gone in the end."""
    async with plain.session() as session, faulty_registry(plain.server) as proxy:
        direct = plain.client(session)
        survived = 0
        for deletions in range(60):
            ref = Reference(plain.host, f"garbage/killed-{deletions}")
            image, digests = await publish(direct, ref, "a", signed=False)
            before = len(await leftovers(direct, image, digests))
            proxy.seen.clear()
            proxy.faults[:] = [refuse_after(deletions)]
            through = image.model_copy(update={"image": image.image.replace(plain.host, proxy.host)})
            interrupted = ImageRemover(Registries(session, (proxy.host,)))
            try:
                await interrupted.remove(through, {})
            except RemovalError:
                survived += 1
            else:
                assert survived >= 6
                return
            assert len(await leftovers(direct, image, digests)) <= before
            assert await ImageRemover(Registries(session, (plain.host,))).remove(image, {})
            assert await leftovers(direct, image, digests) == [], f"killed before deletion {deletions + 1}"
        pytest.fail("the removal never ended")


def refuse_after(deletions: int) -> Fault:
    left = deletions

    async def fault(request: web.Request) -> web.Response | None:
        nonlocal left
        if request.method != "DELETE":
            return None
        left -= 1
        return web.Response(status=400) if left < 0 else None

    return fault


@pytest.mark.parametrize("kind", list(Kind), ids=str)
async def test_a_registry_that_forbids_deletion_keeps_everything(
    kind: Kind, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with start_kind(kind, Way.PLAIN, tmp_path_factory.mktemp("kept"), deletes=False) as registry:
        async with registry.session() as session:
            client = registry.client(session)
            image, digests = await publish(client, Reference(registry.host, "garbage/kept"), "a")
            before = await leftovers(client, image, digests)
            with pytest.raises(RemovalError, match="enable deletion") as raised:
                await remover(registry, session).remove(image, {})
            assert (raised.value.reason, raised.value.is_final) == ("DeletionForbidden", True)
            assert await leftovers(client, image, digests) == before


async def test_without_the_right_to_delete_a_person_is_asked_for(plain: KnownRegistry) -> None:
    async with plain.session() as session, faulty_registry(plain.server) as proxy:
        image, _ = await publish(plain.client(session), Reference(plain.host, "garbage/denied"), "a")

        async def deny(request: web.Request) -> web.Response | None:
            return web.Response(status=403) if request.method == "DELETE" else None

        proxy.faults.append(deny)
        through = image.model_copy(update={"image": image.image.replace(plain.host, proxy.host)})
        with pytest.raises(RemovalError, match="pushSecret") as raised:
            await ImageRemover(Registries(session, (proxy.host,))).remove(through, {})
        assert raised.value.is_final
