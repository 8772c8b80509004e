"""Images as built, judged by tools of others: in a registry, on a mirror, unpacked, by the schemas."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from zstandard import ZstdDecompressor

from cluster.tools import tool
from edgemodel_operator.api.image import Compression, Sharding
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.compression import GZIP
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, canonical_json
from edgemodel_operator.oci.image import RuntimeSettings, make_image, make_index, parse_index, parse_manifest
from edgemodel_operator.oci.layer import File, write_layer
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from support.build import make_onnx, make_request, sha256, source_server, with_image
from support.images import AMD64, ARM64
from support.packages import install_package
from support.registry import RegistryServer, start_registry

SMALL, LARGE = make_onnx(), make_onnx(1800)
CONFIG = "application/vnd.oci.image.config.v1+json"
DESCRIPTOR = "application/vnd.oci.descriptor.v1+json"


@dataclass(frozen=True)
class Case:
    """A way to build an image."""

    model: bytes
    sharding: Sharding
    compression: Compression
    layers: int
    """How many layers the model makes."""


CASES = {
    "one file, zstd": Case(SMALL, Sharding.AUTO, Compression.ZSTD, 1),
    "sharded, zstd": Case(LARGE, Sharding.AUTO, Compression.ZSTD, 2),
    "sharded, gzip": Case(LARGE, Sharding.AUTO, Compression.GZIP, 2),
    "large in one file, gzip": Case(LARGE, Sharding.DISABLED, Compression.GZIP, 1),
}


@dataclass(frozen=True)
class Built:
    """An image in a registry."""

    case: Case
    image: Reference
    digest: str


@pytest.fixture(scope="module", params=list(CASES.values()), ids=list(CASES))
def built(
    request: pytest.FixtureRequest, registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    """Build each image once, in a loop of its own."""
    return asyncio.run(build(request.param, registry, tmp_path_factory.mktemp("work")))


async def build(case: Case, registry: RegistryServer, work: Path) -> Built:
    name = sha256(f"{case.layers} {case.compression} {len(case.model)}".encode())[:12]
    async with new_session() as session, source_server() as server:
        client = RegistryClient(session, plain_http={registry.host})
        runtime = await push_runtime(client, parse_reference(f"{registry.host}/runtimes/judged:1"))
        asked = make_request(
            server.serve(case.model), case.model, runtime=runtime, repository=f"{registry.host}/judged/{name}"
        )
        asked = with_image(asked, sharding=case.sharding, compression=case.compression)
        result = await run_build(asked, work_root=work)
    return Built(case, parse_reference(result.image), result.index_digest)


async def push_runtime(client: RegistryClient, ref: Reference) -> str:
    """Push a runtime image of two platforms whose layers every tool can unpack."""
    children = []
    for platform in (AMD64, ARM64):
        out = io.BytesIO()
        layer = write_layer([File("opt/server", str(platform).encode())], out, compressor=GZIP)
        image = make_image(platform, [layer], RuntimeSettings(entrypoint=["/opt/server"], user="65532:65532"))
        await client.put_blob(ref, out.getvalue(), layer.descriptor)
        await client.put_blob(ref, image.config, image.config_descriptor)
        await client.put_manifest(ref.with_digest(image.descriptor.digest), image.manifest, OCI_MANIFEST)
        children.append(image.descriptor)
    stored = await client.put_manifest(ref, make_index(children), OCI_INDEX)
    return str(ref.with_digest(stored.descriptor.digest))


async def run(*command: str | Path) -> bytes:
    """Run a judge; what it complains about fails the test."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complaints = await process.communicate()
    assert process.returncode == 0, (said + complaints).decode()
    return said


async def test_the_model_has_as_many_layers_as_it_should(built: Built, client: RegistryClient) -> None:
    index = parse_index((await client.get_manifest(built.image)).body)
    for child in index.manifests:
        manifest = await client.get_manifest(built.image.with_digest(child.digest))
        assert len(parse_manifest(manifest.body).layers) >= 1 + built.case.layers


async def test_crane_finds_every_digest_and_size_as_stated(built: Built) -> None:
    """Into layers it looks only where they are gzip: of zstd it says "gzip: invalid header"."""
    options = ["--fast"] if built.case.compression is Compression.ZSTD else []
    await run(tool("crane"), "validate", *options, "--remote", str(built.image))


async def test_every_layer_unpacks_to_what_the_configuration_states(
    built: Built, client: RegistryClient
) -> None:
    for child in parse_index((await client.get_manifest(built.image)).body).manifests:
        manifest = parse_manifest((await client.get_manifest(built.image.with_digest(child.digest))).body)
        config = json.loads(
            await client.get_blob(built.image, manifest.config.digest, max_bytes=manifest.config.size)
        )
        unpacked = []
        for layer in manifest.layers:
            blob = await client.get_blob(built.image, layer.digest, max_bytes=layer.size)
            is_gzip = layer.media_type.endswith("gzip")
            content = (
                gzip.decompress(blob) if is_gzip else ZstdDecompressor().decompressobj().decompress(blob)
            )
            unpacked.append(f"sha256:{sha256(content)}")
        assert unpacked == config["rootfs"]["diff_ids"]


async def test_skopeo_mirrors_it_without_changing_a_digest(built: Built, tmp_path: Path) -> None:
    skopeo = install_package("skopeo")
    copy = [skopeo, "copy", "--quiet", "--all", "--preserve-digests"]
    copy += ["--src-tls-verify=false", "--dest-tls-verify=false"]
    with start_registry(tmp_path / "mirror") as mirror:
        await run(*copy, f"docker://{built.image}", f"oci:{tmp_path}/carried:1")
        there = f"docker://{mirror.host}/mirrored/model:1"
        await run(*copy, f"oci:{tmp_path}/carried:1", there)
        raw = await run(skopeo, "inspect", "--tls-verify=false", "--raw", there)
        assert Descriptor.of(OCI_INDEX, raw).digest == built.digest
        for architecture in ("amd64", "arm64"):
            choice = (f"--override-arch={architecture}", "--tls-verify=false")
            seen = json.loads(await run(skopeo, *choice, "inspect", choice[1], there))
            assert seen["Architecture"] == architecture


async def test_every_document_passes_the_schemas_of_the_specification(
    built: Built, client: RegistryClient, tmp_path: Path
) -> None:
    index = await client.get_manifest(built.image)
    documents = [(OCI_INDEX, index.body), (DESCRIPTOR, canonical_json(index.descriptor.to_json()))]
    described = await client.list_referrers(built.image, built.digest)
    children = parse_index(index.body).manifests
    for child in (*children, *described):
        documents.append((DESCRIPTOR, canonical_json(child.to_json())))
        body = (await client.get_manifest(built.image.with_digest(child.digest))).body
        documents.append((OCI_MANIFEST, body))
    for child in children:
        body = (await client.get_manifest(built.image.with_digest(child.digest))).body
        config = parse_manifest(body).config
        documents.append((CONFIG, await client.get_blob(built.image, config.digest, max_bytes=config.size)))
    arguments = []
    for number, (media_type, body) in enumerate(documents):
        (tmp_path / f"{number}.json").write_bytes(body)
        arguments.append(f"{media_type}={tmp_path}/{number}.json")
    assert len(described) > 0
    await run(tool("oci-schema"), *arguments)


async def test_the_judge_of_schemas_can_say_no(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"schemaVersion": 2, "manifests": [{"digest": "sha256:1"}]}')
    with pytest.raises(AssertionError, match="is no application"):
        await run(tool("oci-schema"), f"{OCI_INDEX}={tmp_path}/index.json")


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
async def test_umoci_unpacks_the_files_that_the_manifest_names(
    built: Built, architecture: str, tmp_path: Path
) -> None:
    """Debian's umoci knows gzip alone: of zstd layers it says so, and nodes say the rest."""
    skopeo, umoci = install_package("skopeo"), install_package("umoci")
    choice = [f"--override-arch={architecture}", "copy", "--quiet", "--src-tls-verify=false"]
    await run(skopeo, *choice, f"docker://{built.image}", f"oci:{tmp_path}/one:1")
    unpack = (umoci, "unpack", "--rootless", "--image", f"{tmp_path}/one:1", tmp_path / "bundle")
    if built.case.compression is Compression.ZSTD:
        with pytest.raises(AssertionError, match="zstd"):
            await run(*unpack)
        return
    await run(*unpack)
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "opt/server").read_text() == f"linux/{architecture}"
    folder = root / "models/line-orientation"
    named = {
        file["path"]: file["sha256"] for file in json.loads((folder / "manifest.json").read_bytes())["files"]
    }
    there = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert named == {str(path.relative_to(folder)): sha256(path.read_bytes()) for path in there}
    assert len(named) > 1 or built.case.layers == 1
