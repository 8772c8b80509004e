"""A base image that is not ours: read from its registry, named by digest, left there until the push."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from edgemodel_operator.build.failures import BuildError
from edgemodel_operator.build.origin.packages import InvalidPackages, Package, packages_of
from edgemodel_operator.build.runtime import RuntimeChild, read_runtime
from edgemodel_operator.oci.descriptor import Platform, canonical_json
from edgemodel_operator.oci.image import Image, RuntimeSettings, graft, make_manifest, parse_manifest
from edgemodel_operator.oci.layer import Layer
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient


class BaseUnusable(RuntimeError):  # noqa: N818 - states a fact
    """The base image that was named cannot be built upon; the message says why."""


@dataclass(frozen=True)
class ForeignBase:
    """The image by digest, and what it is on each platform."""

    reference: Reference
    children: Mapping[Platform, RuntimeChild]

    def packages(self, platform: Platform) -> tuple[Package, ...]:
        """Return the base itself, and what it says of its content; nothing is scanned."""
        child = self.children[platform]
        name = self.reference.repository.rpartition("/")[2]
        where = quote(self.reference.name, safe="/:")
        purl = f"pkg:oci/{name}@{quote(child.digest, safe=':')}?repository_url={where}"
        try:
            return (Package(purl), *(packages_of(child.config) or ()))
        except InvalidPackages as error:
            raise BaseUnusable(
                f"The list of packages of {self.reference} cannot be read: {error}."
            ) from error

    def graft(
        self,
        platform: Platform,
        layers: Sequence[Layer],
        settings: RuntimeSettings,
        annotations: Mapping[str, str],
    ) -> Image:
        """Put layers on the base, and our way of running on what its configuration says."""
        child = self.children[platform]
        image = graft(child.manifest, child.config, layers, labels=settings.labels)
        document = json.loads(image.config)
        container = document["config"]
        env = {**_variables(container.get("Env") or ()), **_variables(settings.env)}
        ours = {
            "Entrypoint": list(settings.entrypoint),
            "Env": [f"{name}={value}" for name, value in sorted(env.items())],
            "User": settings.user,
            "WorkingDir": settings.working_dir,
        }
        kept = {name: value for name, value in container.items() if name not in {*ours, "Cmd"}}
        document["config"] = {**kept, **{name: value for name, value in ours.items() if value}}
        config = canonical_json(document)
        return Image(config, make_manifest(config, parse_manifest(image.manifest).layers, annotations))


async def read_base(
    client: RegistryClient, reference: Reference, platforms: Sequence[Platform]
) -> ForeignBase:
    """Read manifests and configurations of the base; raises BaseUnusable."""
    try:
        children = await read_runtime(client, reference, [str(platform) for platform in platforms])
    except BuildError as error:
        raise BaseUnusable(error.failure.message.replace("runtime image", "base image")) from error
    return ForeignBase(reference, {child.platform: child for child in children})


def _variables(pairs: Sequence[str]) -> dict[str, str]:
    split = (pair.partition("=") for pair in pairs)
    return {name: value for name, _, value in split}
