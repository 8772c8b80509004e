"""Tiny images of our own, written as OCI archives: nothing is pulled from a public registry."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class _Archive:
    """The blobs of an OCI image layout, by digest."""

    blobs: dict[str, bytes] = field(default_factory=dict)

    def add(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Keep a blob and return its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, document: object, media_type: str) -> dict[str, Any]:
        """Keep a JSON document and return its descriptor."""
        return self.add(json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), media_type)


def write_archive(path: Path, name: str, programs: Mapping[str, Path]) -> Path:
    """Write an image that consists of one static program per architecture, as an OCI archive (a tar file).

    `programs` maps architectures (`amd64`) to programs; `name` is what the image is called after an import.
    The same input gives the same bytes.
    """
    archive = _Archive()
    manifests = []
    for architecture, program in sorted(programs.items()):
        platform = {"os": "linux", "architecture": architecture}
        manifests.append({**_add_image(archive, program, platform), "platform": platform})
    index = archive.add_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX)
    index["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    files = {f"blobs/sha256/{digest}": content for digest, content in sorted(archive.blobs.items())}
    files["index.json"] = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_tar(files))
    return path


def _add_image(archive: _Archive, program: Path, platform: Mapping[str, str]) -> dict[str, Any]:
    entrypoint = f"/{program.name}"
    layer = archive.add(_tar({program.name: program.read_bytes()}, mode=0o755), _LAYER)
    configuration = {
        **platform,
        "config": {"Entrypoint": [entrypoint], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    config = archive.add_json(configuration, _CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    return archive.add_json(manifest, MANIFEST)


def _tar(files: Mapping[str, bytes], *, mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
