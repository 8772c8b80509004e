"""A variant on a base image that is not ours: read from a registry, grafted, pushed, and whole."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.build.origin.packages import packages_of
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from imagebuild.__main__ import main
from support.build import missing_parts, sha256
from support.images import push_index
from support.origin import PACKAGES, push_runtime
from support.registry import RegistryServer

# The first run on a machine fetches and packs what is tried here.
pytestmark = pytest.mark.timeout(1800)

RECIPE = """
title = "A variant"
repository = "runtime-thing"
base-image = ""
on-demand = true
platforms = ["linux/arm64"]
[python]
distribution = "thing"
source = "src/thing"
[image]
entrypoint = ["/usr/bin/python3.11", "-m", "thing"]
user = "65532:65532"
env = { THING = "1" }
labels = { "dev.edgemodel.runtime" = "thing" }
"""
PROJECT = """
[project]
name = "thing"
version = "3"
license = "MIT"
requires-python = "==3.11.*"
dependencies = []
[tool.uv]
package = false
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with one program, and one variant with a lock of its own."""
    folder, variant = tmp_path / "project", tmp_path / "project" / "images" / "thing"
    (folder / "src" / "thing").mkdir(parents=True)
    (folder / "src" / "thing" / "__main__.py").write_text("print('hello')\n")
    variant.mkdir(parents=True)
    (variant / "image.toml").write_text(RECIPE)
    for place in (folder, variant):
        (place / "pyproject.toml").write_text(PROJECT)
    (folder / "images" / "prune.toml").write_text("")
    subprocess.run(["uv", "lock", "--offline", "--quiet"], cwd=variant, check=True)
    return folder


@pytest.fixture
def repository(registry: RegistryServer, request: pytest.FixtureRequest) -> str:
    return f"{registry.host}/variants/{sha256(request.node.name.encode())[:12]}"


async def build(project: Path, repository: str, *more: str) -> tuple[int, str]:
    """Run the command line in a thread, for it has an event loop of its own; gives status and reference."""
    out = project / "lock.json"
    command = [
        "--project",
        str(project),
        "--cache",
        str(project / "cache"),
        "--only",
        "thing",
        "--out",
        str(out),
    ]
    status = await asyncio.to_thread(main, [*command, "--push", repository, *more])
    return status, json.loads(out.read_text())["runtime-thing"] if status == 0 else ""


async def config_of(client: RegistryClient, image: Reference) -> tuple[Mapping[str, Any], bytes]:
    (child,) = parse_index((await client.get_manifest(image)).body).manifests
    manifest = parse_manifest((await client.get_manifest(image.with_digest(child.digest))).body)
    config = await client.get_blob(image, manifest.config.digest, max_bytes=100_000)
    return json.loads(config)["config"], config


@pytest.mark.parametrize("honest", [True, False], ids=["a base that lists its packages", "a silent base"])
async def test_our_layers_lie_on_the_base_that_was_named(
    client: RegistryClient, project: Path, repository: str, honest: bool
) -> None:
    base = parse_reference(f"{repository}/base:1")
    pushed = await (push_runtime if honest else push_index)(client, base)
    status, built = await build(project, repository, "--base-image", f"thing={base.name}@{pushed.digest}")
    image = parse_reference(built)
    assert (status, await missing_parts(client, image)) == (0, [])
    below = parse_index((await client.get_manifest(base)).body).manifests[1]
    layers = parse_manifest((await client.get_manifest(base.with_digest(below.digest))).body).layers
    (child,) = parse_index((await client.get_manifest(image)).body).manifests
    assert str(child.platform) == "linux/arm64"
    manifest = parse_manifest((await client.get_manifest(image.with_digest(child.digest))).body)
    assert manifest.layers[: len(layers)] == layers
    assert len(manifest.layers) == len(layers) + 1
    settings, config = await config_of(client, image)
    assert settings["Entrypoint"] == ["/usr/bin/python3.11", "-m", "thing"]
    assert (settings["User"], settings["Env"]) == ("65532:65532", ["THING=1"])
    said = packages_of(config) or ()
    assert [one.purl for one in said if one.kind == "oci"] == [
        f"pkg:oci/base@{below.digest}?repository_url={base.name}"
    ]
    assert [one.purl for one in said if one.name == "thing"] == ["pkg:generic/thing@3"]
    assert set(PACKAGES) <= set(said) if honest else len(said) == 2


async def test_the_same_base_gives_the_same_image(
    client: RegistryClient, project: Path, repository: str
) -> None:
    base = parse_reference(f"{repository}/base:1")
    named = f"thing={base.name}@{(await push_runtime(client, base)).digest}"
    (_, first), (_, second) = [await build(project, repository, "--base-image", named) for _ in range(2)]
    assert first == second


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("", "--base-image thing=registry/repository@sha256:"),
        ("thing={base}:1", "names no digest"),
        ("thing={base}@sha256:" + "0" * 64, "does not exist"),
    ],
)
async def test_a_base_that_cannot_be_used_is_an_error_with_a_way_out(
    client: RegistryClient,
    project: Path,
    repository: str,
    capsys: pytest.CaptureFixture[str],
    named: str,
    sentence: str,
) -> None:
    base = parse_reference(f"{repository}/base:1")
    await push_index(client, base)
    given = ["--base-image", named.format(base=base.name)] if named else []
    assert await build(project, repository, *given) == (1, "")
    assert sentence in capsys.readouterr().err
