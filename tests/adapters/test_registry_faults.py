"""The registry client when the registry or the way to it misbehaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from edgemodel_operator.oci.copy import Endpoint, copy_image
from edgemodel_operator.oci.descriptor import OCI_INDEX, Descriptor, canonical_json, sha256_digest
from edgemodel_operator.oci.errors import (
    DigestMismatch,
    ProtocolError,
    RegistryError,
    RegistryUnavailable,
    TooLarge,
)
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from support.images import attach, push_index
from support.registry import Fault, FaultyRegistry, break_off_times, fail_times, start_registry

BINARY = "application/octet-stream"
CONTENT = os.urandom(3_000_000)
BLOB = Descriptor.of(BINARY, CONTENT)


@pytest.fixture
def ref(faulty: FaultyRegistry, request: pytest.FixtureRequest) -> Reference:
    name = request.node.name.lower().replace("[", "-").replace("]", "").replace("_", "-")
    return parse_reference(f"{faulty.host}/faults/{name}:1")


def answer(make: Callable[[], web.Response], *, method: str, part: str) -> Fault:
    async def fault(request: web.Request) -> web.Response | None:
        return make() if request.method == method and part in request.path_qs else None

    return fault


async def read(client: RegistryClient, ref: Reference, blob: Descriptor = BLOB) -> bytes:
    return b"".join([chunk async for chunk in client.open_blob(ref, blob)])


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_transient_answers_are_repeated(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference, status: int
) -> None:
    faulty.faults.append(fail_times(3, status, Retry_After="0"))
    assert not await faulty_client.blob_exists(ref, BLOB.digest)
    assert len(faulty.requests("HEAD")) == 4


async def test_case_23_a_lasting_failure_ends_with_its_status(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    faulty.faults.append(fail_times(1000, 503))
    with pytest.raises(RegistryUnavailable, match="503"):
        await faulty_client.get_manifest(ref)
    assert len(faulty.requests("GET")) == 4


async def test_case_23_a_refusal_is_not_repeated(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    faulty.faults.append(fail_times(1, 403))
    with pytest.raises(RegistryError) as raised:
        await faulty_client.get_manifest(ref)
    assert not raised.value.retryable
    assert len(faulty.requests("GET")) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
async def test_an_upload_survives_failures_at_each_step(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference, method: str
) -> None:
    faulty.faults.append(fail_times(2, 502, method=method))
    await faulty_client.put_blob(ref, CONTENT, BLOB)
    assert await read(faulty_client, ref) == CONTENT


async def test_an_upload_continues_where_the_registry_says(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    """A registry that keeps what a broken PATCH had brought gets only the rest, with a Content-Range."""
    received = bytearray()
    here = f"http://{faulty.host}/v2/{ref.repository}/blobs/uploads/session"

    async def resumable(request: web.Request) -> web.StreamResponse | None:
        where = {"Location": here, "Range": f"0-{len(received) - 1}"}
        if request.method == "POST":
            return web.Response(status=202, headers=where)
        if request.method == "GET" and request.path.endswith("session"):
            return web.Response(status=204, headers=where)
        if request.method == "PATCH" and not received:
            received.extend(await request.content.readexactly(1_000_000))
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        if request.method == "PATCH":
            received.extend(await request.content.read())
            return web.Response(status=202, headers=where)
        if request.method == "PUT":
            return web.Response(status=201, headers={"Docker-Content-Digest": sha256_digest(bytes(received))})
        return None

    faulty.faults.append(resumable)
    await faulty_client.put_blob(ref, CONTENT, BLOB)
    assert bytes(received) == CONTENT
    assert [sent.get("Content-Range") for sent in faulty.requests("PATCH")] == [
        None,
        f"1000000-{len(CONTENT) - 1}",
    ]


async def test_a_broken_download_is_resumed(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    await faulty_client.put_blob(ref, CONTENT, BLOB)
    faulty.faults.append(break_off_times(2, after=1_000_000, body=CONTENT, method="GET", part="/blobs/"))
    assert await read(faulty_client, ref) == CONTENT


async def test_a_download_that_always_breaks_is_given_up(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    faulty.faults.append(break_off_times(1000, after=0, body=CONTENT, method="GET", part="/blobs/"))
    with pytest.raises(RegistryUnavailable, match=r"broke off|failed"):
        await read(faulty_client, ref)


async def test_case_20_changed_content_of_a_blob_is_refused(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    forged = b"\0" + CONTENT[1:]
    faulty.faults.append(answer(lambda: web.Response(body=forged), method="GET", part="/blobs/"))
    with pytest.raises(DigestMismatch):
        await read(faulty_client, ref)
    with pytest.raises(DigestMismatch):
        await faulty_client.get_blob(ref, BLOB.digest, max_bytes=len(forged))


async def test_case_20_a_truncated_blob_is_refused(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    faulty.faults.append(answer(lambda: web.Response(body=CONTENT[:-1]), method="GET", part="/blobs/"))
    with pytest.raises(DigestMismatch):
        await read(faulty_client, ref)


async def test_case_21_a_blob_that_never_ends_is_cut_at_its_size(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse | None:
        if request.method != "GET":
            return None
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\0" * 65536)

    faulty.faults.append(endless)
    with pytest.raises(TooLarge):
        await read(faulty_client, ref)
    with pytest.raises(TooLarge):
        await faulty_client.get_blob(ref, BLOB.digest, max_bytes=1000)
    with pytest.raises(TooLarge):
        await faulty_client.get_manifest(ref, max_bytes=1000)


async def test_case_20_changed_content_of_a_manifest_is_refused(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    body = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    faulty.faults.append(
        answer(
            lambda: web.Response(body=body + b" ", content_type=OCI_INDEX), method="GET", part="/manifests/"
        )
    )
    with pytest.raises(DigestMismatch):
        await faulty_client.get_manifest(ref.with_digest(sha256_digest(body)))


async def test_case_20_a_manifest_served_under_another_type_is_refused(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    body = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    other = "application/vnd.oci.image.manifest.v1+json"
    faulty.faults.append(
        answer(lambda: web.Response(body=body, content_type=other), method="GET", part="/manifests/")
    )
    with pytest.raises(ProtocolError, match="calls itself"):
        await faulty_client.get_manifest(ref)


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_registry_that_stores_something_else_is_caught(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference, method: str
) -> None:
    other = {"Docker-Content-Digest": sha256_digest(b"other")}
    faulty.faults.append(
        answer(lambda: web.Response(status=201, headers=other), method=method, part="/blobs/uploads/")
    )
    with pytest.raises(DigestMismatch):
        await faulty_client.put_blob(ref, b"x", Descriptor.of(BINARY, b"x"), mount_from="some/repository")


async def test_case_22_an_upload_sent_to_another_host_is_refused(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    away = {"Location": "http://attacker.example.com/upload"}
    faulty.faults.append(
        answer(lambda: web.Response(status=202, headers=away), method="POST", part="/blobs/uploads/")
    )
    with pytest.raises(ProtocolError, match=r"attacker\.example\.com"):
        await faulty_client.put_blob(ref, b"x", Descriptor.of(BINARY, b"x"))


async def test_relative_locations_are_followed(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    where = {"Location": f"/v2/{ref.repository}/blobs/uploads/here?_state=a%2Bb%3D"}
    faulty.faults.append(
        answer(lambda: web.Response(status=202, headers=where), method="POST", part="/blobs/uploads/")
    )
    faulty.faults.append(answer(lambda: web.Response(status=201), method="PUT", part="/uploads/here"))
    await faulty_client.put_blob(ref, b"x", Descriptor.of(BINARY, b"x"))
    [path] = [path for method, path, _ in faulty.seen if method == "PUT"]
    assert path.startswith(f"/v2/{ref.repository}/blobs/uploads/here?_state=a%2Bb%3D&digest=sha256:")


async def test_redirects_end(faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference) -> None:
    faulty.faults.append(
        answer(lambda: web.Response(status=307, headers={"Location": "/again"}), method="GET", part="/")
    )
    with pytest.raises(ProtocolError, match="redirects"):
        await faulty_client.get_blob(ref, BLOB.digest, max_bytes=10)


async def test_an_unknown_answer_is_a_protocol_error_with_the_registry_s_code(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    said = web.json_response
    faulty.faults.append(
        answer(
            lambda: said({"errors": [{"code": "NAME_INVALID", "message": "secret"}]}, status=400),
            method="GET",
            part="/",
        )
    )
    with pytest.raises(ProtocolError, match="NAME_INVALID") as raised:
        await faulty_client.get_manifest(ref)
    assert "secret" not in str(raised.value)


async def test_the_referrers_api_is_read_page_by_page(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    subject = sha256_digest(b"subject")
    entries = [Descriptor("application/x", sha256_digest(str(n).encode()), n) for n in range(4)]

    async def api(request: web.Request) -> web.Response | None:
        if "/referrers/" not in request.path:
            return None
        page = int(request.query.get("page", "0"))
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        document["manifests"] = [entry.to_json() for entry in entries[page * 2 : page * 2 + 2]]
        link = {"Link": f'<{request.path}?page={page + 1}>; rel="next"'} if page < 1 else {}
        return web.Response(body=canonical_json(document), content_type=OCI_INDEX, headers=link)

    faulty.faults.append(api)
    with pytest.raises(TooLarge):
        await faulty_client.list_referrers(ref, subject, max_referrers=3)
    assert await faulty_client.list_referrers(ref, subject) == tuple(entries)


async def test_case_22_referrers_continued_on_another_host_are_refused(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    body = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    link = {"Link": '<http://attacker.example.com/more>; rel="next"'}
    faulty.faults.append(
        answer(
            lambda: web.Response(body=body, content_type=OCI_INDEX, headers=link),
            method="GET",
            part="/referrers/",
        )
    )
    with pytest.raises(ProtocolError, match=r"attacker\.example\.com"):
        await faulty_client.list_referrers(ref, sha256_digest(b"subject"))


async def test_with_a_page_for_people_in_place_of_the_referrers_api_the_fallback_tag_alone_can_tell(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    """A proxy's maintenance page must not make a signed image an unsigned one."""
    subject = await push_index(faulty_client, ref)
    page = web.Response
    faulty.faults.append(
        answer(lambda: page(text="<html>", content_type="text/html"), method="GET", part="/referrers/")
    )
    with pytest.raises(ProtocolError, match="with a page of type text/html") as raised:
        await faulty_client.list_referrers(ref, subject.digest)
    assert raised.value.retryable
    attached = await attach(faulty_client, ref, subject, "signature")
    assert await faulty_client.list_referrers(ref, subject.digest) == (attached,)


async def test_a_list_of_referrers_may_be_announced_as_plain_json(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    entry, page = Descriptor("application/x", sha256_digest(b"signature"), 9), web.Response
    body = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_json()]})
    faulty.faults.append(
        answer(lambda: page(body=body, content_type="application/json"), method="GET", part="/referrers/")
    )
    assert await faulty_client.list_referrers(ref, sha256_digest(b"subject")) == (entry,)
    body = b'{"status": "down"}'
    with pytest.raises(ProtocolError, match="malformed"):
        await faulty_client.list_referrers(ref, sha256_digest(b"subject"))


async def test_a_page_for_people_in_place_of_the_fallback_tag_too_is_no_answer(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    """A login page before the registry must not make a signed image an unsigned one."""
    faulty.faults.append(
        answer(lambda: web.Response(text="<html>", content_type="text/html"), method="GET", part="/")
    )
    with pytest.raises(ProtocolError):
        await faulty_client.list_referrers(ref, sha256_digest(b"subject"))


async def test_children_are_not_taken_for_referrers(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    """Some registries read the tag `sha256-<hex>` as the digest itself and answer with the subject."""
    subject = await push_index(faulty_client, ref)
    index = (await faulty_client.get_manifest(ref)).body
    faulty.faults.append(
        answer(
            lambda: web.Response(body=index, content_type=OCI_INDEX), method="GET", part="/manifests/sha256-"
        )
    )
    assert await faulty_client.list_referrers(ref, subject.digest) == ()


async def test_case_20_another_digest_in_answer_to_head_is_refused(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    other = {"Docker-Content-Digest": sha256_digest(b"other"), "Content-Length": "5"}
    faulty.faults.append(answer(lambda: web.Response(headers=other), method="HEAD", part="/manifests/"))
    with pytest.raises(DigestMismatch):
        await faulty_client.head_manifest(ref.with_digest(sha256_digest(b"wanted")))


async def test_a_copy_within_one_registry_moves_no_bytes(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference
) -> None:
    await push_index(faulty_client, ref, CONTENT)
    faulty.seen.clear()
    target = parse_reference(f"{ref.name}-copy:1")
    await copy_image(Endpoint(faulty_client, ref), Endpoint(faulty_client, target))
    assert not faulty.requests("PATCH")
    assert not faulty.requests("PUT", "/blobs/")
    assert not faulty.requests("GET", "/blobs/")


async def test_a_copy_between_registries_streams_every_blob(
    faulty: FaultyRegistry, faulty_client: RegistryClient, ref: Reference, tmp_path: Path
) -> None:
    source = await push_index(faulty_client, ref, CONTENT)
    with start_registry(tmp_path) as other:
        async with new_session() as session:
            client = RegistryClient(session, plain_http={other.host})
            target = parse_reference(f"{other.host}/copied/model:1")
            copied = await copy_image(Endpoint(faulty_client, ref), Endpoint(client, target))
            assert copied.digest == source.digest
            for child in parse_index((await client.get_manifest(target)).body).manifests:
                manifest = await client.get_manifest(target.with_digest(child.digest))
                for layer in parse_manifest(manifest.body).layers:
                    assert await client.blob_exists(target, layer.digest)
