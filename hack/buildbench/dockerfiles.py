"""The other contenders: buildah with Dockerfiles, as good as they can be made.

| name    | stands on                   | does                                                         |
|---------|-----------------------------|--------------------------------------------------------------|
| `copy`  | the base                    | copies the files of the runtime, which lie ready, and the model |
| `graft` | the published runtime image | copies the model: what a Dockerfile can learn from us        |
| `run`   | the base                    | `RUN pip install`, for arm64 under qemu, and copies the model |

None has a network to wait for, and `--timestamp 0 --no-cache` is what gives `copy` and `graft` the same
digest for the same input: with buildah's cache of layers it depends on what was built before.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from buildbench.meter import Cost, meter

_COPY = """\
ARG TARGETARCH
FROM {base}-linux-${{TARGETARCH}}
ARG TARGETARCH
ENV ORT_DISABLE_TELEMETRY=1
ENTRYPOINT ["/usr/bin/python3", "-m", "edgemodel_server"]
COPY runtime/${{TARGETARCH}} /
COPY models /models
"""
_GRAFT = """\
ARG TARGETARCH
FROM {base}-linux-${{TARGETARCH}}
COPY models /models
"""
_RUN = """\
ARG TARGETARCH
FROM {base}-linux-${{TARGETARCH}}
ARG TARGETARCH
USER 0
RUN --mount=type=bind,source=wheels,target=/wheels ["python3", "/wheels/pip.whl/pip", "install", \
"--no-index", "--no-deps", "--no-cache-dir", "--break-system-packages", "--root-user-action=ignore", \
"--disable-pip-version-check", \
"--find-links=/wheels", "-r", "/wheels/requirements.txt"]
USER 65532:65532
ENV ORT_DISABLE_TELEMETRY=1
ENTRYPOINT ["/usr/bin/python3", "-m", "edgemodel_server"]
COPY server /usr/local/lib/python3.11/dist-packages
COPY models /models
"""
DOCKERFILES = {"copy": _COPY, "graft": _GRAFT, "run": _RUN}
_POLICY = {"default": [{"type": "insecureAcceptAnything"}]}


@dataclass(frozen=True)
class Buildah:
    """Debian's buildah with a storage of its own in a folder."""

    folder: Path
    registry: str

    def prepare(self) -> None:
        """Make the storage."""
        (self.context / "models" / "model").mkdir(parents=True)
        (self.folder / "policy.json").write_text(json.dumps(_POLICY))

    def end(self) -> None:
        """Remove the storage with all that is mounted in it."""
        meter([*self._buildah(), "rm", "--all"])
        meter([*self._buildah(), "rmi", "--all", "--force"])

    def pull(self, image: str) -> None:
        """Have the image of each platform in the storage, so that no build pays for it."""
        for architecture in ("amd64", "arm64"):
            meter([
                *self._buildah(), "pull", "--quiet", "--tls-verify=false", "--policy=always",
                f"--signature-policy={self.folder}/policy.json", f"--arch={architecture}",
                f"{image}-linux-{architecture}",
            ])  # fmt: skip

    @property
    def context(self) -> Path:
        """The folder that builds copy from."""
        return self.folder / "context"

    def build(self, name: str, base: str, model: Path, tag: str) -> Cost:
        """Build the Dockerfile of this name for both platforms, and push it; `base` is an image by tag."""
        self._put_model(model)
        return self._build_and_push(
            DOCKERFILES[name].format(base=base), f"{self.registry}/buildah/{name}:{tag}"
        )

    def _put_model(self, model: Path) -> None:
        shutil.copyfile(model, self.context / "models" / "model" / "model.onnx")

    def _build_and_push(self, dockerfile: str, image: str) -> Cost:
        (self.folder / "Dockerfile").write_text(dockerfile)
        name = f"bench-{image.rpartition('/')[2].replace(':', '-')}-{os.urandom(3).hex()}"
        policy = f"--signature-policy={self.folder}/policy.json"
        build = [
            *self._buildah(), "build", "--quiet", "--pull=false", "--isolation=chroot", "--jobs=2",
            "--timestamp=0", "--no-cache", "--platform=linux/amd64,linux/arm64", f"--manifest={name}",
            "--tls-verify=false", policy, f"--file={self.folder}/Dockerfile", str(self.context),
        ]  # fmt: skip
        push = [
            *self._buildah(), "manifest", "push", "--quiet", "--all", "--tls-verify=false", policy, name,
            f"docker://{image}",
        ]  # fmt: skip
        cost, _ = meter(["sh", "-ec", f"{_words(build)} >&2; {_words(push)} >&2"])
        return cost

    def _buildah(self) -> list[str]:
        return ["buildah", f"--root={self.folder}/storage", f"--runroot={self.folder}/run"]


def _words(argv: list[str]) -> str:
    return " ".join(f"'{word}'" for word in argv)
