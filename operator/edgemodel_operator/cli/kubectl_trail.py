"""Everything that a cluster and a registry tell of one image: what `kubectl edgemodel audit` joins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgemodel_operator.api.names import FIELD_MANAGER
from edgemodel_operator.build.origin.provenance import PREDICATE_TYPE
from edgemodel_operator.cli.kubectl_cluster import ClusterView, NotThere
from edgemodel_operator.cli.kubectl_verify import verify_one
from edgemodel_operator.cli.model_images import images_of
from edgemodel_operator.cli.registry import Registries, registry_client
from edgemodel_operator.cli.verify_report import VerifyReport
from edgemodel_operator.core.audit_uses import uses_of
from edgemodel_operator.core.trust import AnyPolicy, Policy, matching_policies
from edgemodel_operator.oci.descriptor import INDEX_TYPES
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.image import InvalidImage, parse_index
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attestations import SignedStatement, judge_statement
from edgemodel_operator.signing.demand import Authority
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.stored_attestations import list_statements, read_statement
from edgemodel_operator.signing.verdict import Format

COMPONENTS = ("edgemodel-signer", "edgemodel-admission", FIELD_MANAGER)
"""Whose events tell of images: signatures, refusals, findings."""

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class ModelSource:
    """The model that an image was built from, as its EdgeModel tells; `built_at`: when that was done."""

    model: str
    version: str
    source: Mapping[str, Any]
    files: tuple[Mapping[str, Any], ...]
    build_key: str
    built_at: str


@dataclass(frozen=True)
class Statement:
    """A signed statement about the image or one of its platforms, by somebody whom the policies know."""

    predicate_type: str
    subject: str
    format: str
    authorities: tuple[str, ...]
    key: str
    predicate: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Sighting:
    """A place where the image runs."""

    node: str
    namespace: str
    pod: str
    container: str
    since: str


@dataclass(frozen=True)
class Occurrence:
    """An event that names the image."""

    time: str
    reason: str
    about: str
    message: str


@dataclass(frozen=True)
class Trail:
    """All of it for one image; `problems` says what could not be read, each half a sentence."""

    image: Reference
    sources: tuple[ModelSource, ...]
    verification: VerifyReport
    statements: tuple[Statement, ...]
    events: tuple[Occurrence, ...]
    sightings: tuple[Sighting, ...]
    problems: tuple[str, ...] = ()

    @property
    def provenance(self) -> Statement | None:
        """The statement of how the image was built, if a known authority signed one."""
        return next((one for one in self.statements if one.predicate_type == PREDICATE_TYPE), None)


async def images_with_digest(view: ClusterView, digest: str) -> tuple[Reference, ...]:
    """Give the names under which the cluster knows a digest. Raises NotThere."""
    models = [image for model in await view.models() for image, _ in images_of(model)]
    found = {str(image): image for image in models if image.digest == digest}
    for pod in await view.pods_with([digest]):
        for use in uses_of(pod):
            name, _, named = use.image.partition("@")
            if named == digest:
                found.setdefault(use.image, _reference(name, digest))
    if not found:
        raise NotThere(f"nothing in the cluster names {digest}: name the image with its repository")
    return tuple(found.values())


async def follow(view: ClusterView, image: Reference, registries: Registries) -> Trail:
    """Join everything about an image, named by digest. Raises KubeError."""
    problems: list[str] = []
    policies = await view.policies()
    async with registry_client(image, registries) as client:
        try:
            platforms = await _platforms(client, image)
            statements = await _statements(client, view, policies, image, platforms)
        except (RegistryError, InvalidImage) as error:
            platforms, statements = (), ()
            problems.append(str(error).rstrip("."))
    digests = (str(image.digest), *platforms)
    events = await view.events_about(digests, COMPONENTS)
    return Trail(
        image=image,
        sources=_sources(await view.models(), image),
        verification=await verify_one(view, image, policies, await view.exemptions(), registries),
        statements=statements,
        events=tuple(_occurrence(event) for event in events),
        sightings=tuple(sorted(_sightings(await view.pods_with(digests), digests), key=_place)),
        problems=tuple(problems),
    )


def _reference(name: str, digest: str) -> Reference:
    registry, _, repository = name.partition("/")
    return Reference(registry, repository.partition(":")[0], digest=digest)


async def _platforms(client: RegistryClient, image: Reference) -> tuple[str, ...]:
    manifest = await client.get_manifest(image)
    if manifest.descriptor.media_type not in INDEX_TYPES:
        return ()
    return tuple(child.digest for child in parse_index(manifest.body).manifests)


async def _statements(
    client: RegistryClient,
    view: ClusterView,
    policies: Sequence[AnyPolicy],
    image: Reference,
    platforms: Sequence[str],
) -> tuple[Statement, ...]:
    """Read what the authorities of the policies that speak about the image said of it."""
    known: dict[str, Authority] = {}
    for policy in matching_policies(policies, image.name, view.place.namespace):
        if isinstance(policy, Policy):
            demand = (await view.authorities.demand_of(policy)).demand
            known.update({authority.name: authority for authority in demand.authorities})
    found: list[Statement] = []
    for digest in (str(image.digest), *platforms):
        for kind in Format:
            found += await _signed(client, image, digest, kind, tuple(known.values()))
    return tuple(found)


async def _signed(
    client: RegistryClient, image: Reference, digest: str, kind: Format, known: tuple[Authority, ...]
) -> list[Statement]:
    listing = await list_statements(client, image, digest, kind)
    if listing.errors:
        raise listing.errors[0]
    found = []
    for stored in listing.stored:
        try:
            candidate = await read_statement(client, image, stored, kind)
        except FormatError:
            continue  # anybody who may push can leave junk there
        judged = judge_statement(candidate, digest, known) if candidate is not None else None
        if isinstance(judged, SignedStatement):
            found.append(_statement(judged, digest, kind))
    return found


def _statement(signed: SignedStatement, digest: str, kind: Format) -> Statement:
    predicate = json.loads(signed.candidate.payload).get("predicate")
    return Statement(
        signed.predicate_type,
        digest,
        kind.value,
        tuple(signed.signer.authorities),
        signed.signer.key,
        predicate if isinstance(predicate, dict) else {},
    )


def _sources(models: Sequence[Raw], image: Reference) -> tuple[ModelSource, ...]:
    return tuple(_source(model, key) for model in models for found, key in images_of(model) if found == image)


def _source(model: Raw, build_key: str) -> ModelSource:
    metadata, status, spec = model["metadata"], model.get("status") or {}, model["spec"]["model"]
    built: Raw = next((one for one in status.get("conditions") or () if one["type"] == "Built"), {})
    return ModelSource(
        model=f"{metadata['namespace']}/{metadata['name']}",
        version=str(spec.get("version", "")),
        source=spec.get("source") or {},
        files=tuple((status.get("model") or {}).get("files") or ()),
        build_key=build_key,
        built_at=built.get("lastTransitionTime", "") if built.get("status") == "True" else "",
    )


def _occurrence(event: Raw) -> Occurrence:
    about = event.get("involvedObject") or {}
    name = "/".join(filter(None, (about.get("namespace"), about.get("name"))))
    return Occurrence(
        str(event.get("lastTimestamp") or ""),
        str(event.get("reason") or ""),
        f"{about.get('kind', '')} {name}".strip(),
        str(event.get("message") or ""),
    )


def _sightings(pods: Sequence[Raw], digests: Sequence[str]) -> Iterator[Sighting]:
    for pod in pods:
        since = _times(pod)
        for use in uses_of(pod):
            if any(digest in use.image or digest in use.running for digest in digests):
                time = since.get(use.container) or (pod.get("status") or {}).get("startTime") or ""
                yield Sighting(use.node, use.namespace, use.pod, use.container, time)


def _times(pod: Raw) -> dict[str, str]:
    """Say since when each container runs."""
    status = pod.get("status") or {}
    return {
        f"{field.removesuffix('Statuses')}s[{report.get('name')}]": (
            (report.get("state") or {}).get("running") or {}
        ).get("startedAt", "")
        for field in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        for report in status.get(field) or ()
    }


def _place(sighting: Sighting) -> tuple[str, str, str, str]:
    return sighting.node, sighting.namespace, sighting.pod, sighting.container
