"""What tests of Dockerfiles need: a small runtime image with a shell, contexts, and builds of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemodel_operator.build.dockerfile.inputs import DockerfileBuild, PublishedRuntime
from edgemodel_operator.build.runtime import read_runtime
from edgemodel_operator.oci.compression import ZSTD
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Platform
from edgemodel_operator.oci.image import RuntimeSettings, make_image, make_index
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.layer import Directory, Entry, File, Link, write_layer
from edgemodel_operator.oci.reference import Reference
from support.images import AMD64, ARM64

SHELL = Path("/bin/busybox")
RUNTIME_LABEL = "dev.edgemodel.runtime"
LABELS = {RUNTIME_LABEL: "shell", "edgemodel.dev/packages": "[]"}
SETTINGS = RuntimeSettings(
    entrypoint=["/bin/serve"], env=["PATH=/bin"], user="65532:65532", working_dir="/", labels=LABELS
)
_COMMANDS = (
    "cat",
    "chmod",
    "chown",
    "echo",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "rm",
    "sh",
    "sleep",
    "touch",
    "wget",
)


async def push_shell_runtime(client: ImageStore, ref: Reference) -> PublishedRuntime:
    """Push a runtime image of two layers for two platforms; the shell in both is that of this machine."""
    shell: list[Entry] = [
        File("bin/busybox", SHELL, executable=True),
        *(Link(f"bin/{name}", "busybox") for name in _COMMANDS),
        Directory("tmp", 0o1777),
        Directory("models"),
        Directory("proc"),
    ]
    layers = []
    for entries in (shell, [File("opt/base", b"base")]):
        out = io.BytesIO()
        layers.append(write_layer(entries, out))
        await client.put_blob(ref, out.getvalue(), layers[-1].descriptor)
    children = []
    for platform in (AMD64, ARM64):
        image = make_image(platform, layers, SETTINGS)
        await client.put_blob(ref, image.config, image.config_descriptor)
        await client.put_manifest(ref.with_digest(image.descriptor.digest), image.manifest, OCI_MANIFEST)
        children.append(image.descriptor)
    index = await client.put_manifest(ref, make_index(children), OCI_INDEX)
    pinned = ref.with_digest(index.descriptor.digest)
    return PublishedRuntime(client, pinned, await read_runtime(client, pinned, []))


def only(runtime: PublishedRuntime, platform: Platform) -> PublishedRuntime:
    """Give the runtime image with one of its platforms."""
    kept = [child for child in runtime.children if child.platform == platform]
    return PublishedRuntime(runtime.store, runtime.reference, kept)


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> dict[str, Path]:
    """Write the files of a context as an opened archive has them: name → path."""
    written = {}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        written[name] = path
    return written


@dataclass
class ContextFolder:
    """Makes builds of contexts, and keeps what they print."""

    folder: Path
    lines: list[str] = field(default_factory=list)

    def build(
        self, dockerfile: str, files: Mapping[str, str | bytes] | None = None, **changes: Any
    ) -> DockerfileBuild:
        """Give the build of a Dockerfile with these files beside it."""
        opened = write_files(self.folder, {"Dockerfile": dockerfile, **(files or {})})
        fields: dict[str, Any] = {
            "files": opened,
            "dockerfile": "Dockerfile",
            "arguments": {},
            "owner": "0123456789abcdef",
            "compressor": ZSTD,
            "on_line": self.lines.append,
        }
        return DockerfileBuild(**{**fields, **changes})
