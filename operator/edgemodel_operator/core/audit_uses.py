"""What runs: every image that the pods of a cluster use, as the API server and the nodes report it.

A pod names an image; its node reports what it runs under that name. Of an image that was pulled the report is
`repository@digest`, where the digest may be that of an index or of one platform, and the repository any that
the node knows for the same content. Of an image that was imported by hand it is a bare `sha256:…`, the digest
of its configuration (seen with containerd 2.4; older runtimes put `docker-pullable://` in front).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Any

from edgemodel_operator.oci.reference import InvalidReference, Reference, is_digest, parse_reference

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
"""On the object that a kubelet makes for a static pod, which nobody asked the API server for
(https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/)."""

_CONTAINERS = (
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)
_FINISHED = frozenset({"Succeeded", "Failed"})
_RUNTIME_PREFIXES = ("docker-pullable://", "docker://")


@dataclass(frozen=True, order=True)
class ImageUse:
    """One place in a pod that uses an image.

    `container` reads like `containers[main]` or `volumes[data].image`. `running` is the node's report, empty
    where there is none: not started yet, or an image volume, of which nodes do not tell.
    """

    namespace: str
    pod: str
    container: str
    node: str
    image: str
    running: str = ""
    static: bool = False

    @property
    def is_volume(self) -> bool:
        """Whether it is an image volume, and no container."""
        return self.container.startswith("volumes[")


@dataclass(frozen=True)
class Subject:
    """What one use comes down to, as far as text alone tells.

    `name` (`host/repository`) is what policies match. `image`, by digest, is what somebody must vouch for;
    None where nothing can be verified, and `reason` and `message` say why. `other` is set when the node
    reports another digest than the pod names: it has to be a part of `image`; `reported` is where it was
    pulled from, as far as the node knows.
    """

    name: str
    image: Reference | None
    other: str = ""
    reported: Reference | None = None
    reason: str = ""
    message: str = ""


def uses_of(pod: Mapping[str, Any]) -> tuple[ImageUse, ...]:
    """Give every use of an image in a pod, as the API server gives the pod; a finished pod runs nothing."""
    metadata, spec, status = (pod.get(part) or {} for part in ("metadata", "spec", "status"))
    if status.get("phase") in _FINISHED:
        return ()
    frame = {
        "namespace": intern(str(metadata.get("namespace", ""))),
        "pod": str(metadata.get("name", "")),
        "node": intern(str(spec.get("nodeName", ""))),
    }
    static = MIRROR_ANNOTATION in (metadata.get("annotations") or {})
    return tuple(
        ImageUse(
            **frame, container=intern(where), image=intern(image), running=intern(running), static=static
        )
        for where, image, running in (*_container_images(spec, status), *_volume_images(spec))
    )


def subject_of(use: ImageUse) -> Subject | None:
    """Say what has to be vouched for, so that a use is fine; None while nothing runs that could be known.

    A digest in the pod counts, and the node must run that or a part of it. Of a tag, which can mean another
    image in a moment, what the node runs counts.
    """
    named, running = _reference(use.image), _reference(use.running)
    bare = use.running if is_digest(use.running) else ""
    name = named.name if named else running.name if running else use.image
    if named and named.digest:
        ran = running.digest if running and running.digest else bare
        other = ran if ran != named.digest else ""
        return Subject(name, named.with_digest(named.digest), other, running if other else None)
    if running and running.digest:
        return Subject(name, (named or running).with_digest(running.digest))
    if bare:
        message = f"its node runs {bare}, which came from no registry: it was imported there by hand"
        return Subject(name, None, reason="NotFromRegistry", message=message)
    if use.is_volume:
        message = "it is named by tag, and nodes do not tell which image a volume holds"
        return Subject(name, None, reason="NoDigest", message=message)
    return None


def _container_images(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for field, status_field in _CONTAINERS:
        reports = {item.get("name"): item for item in status.get(status_field) or ()}
        for container in spec.get(field) or ():
            name = container.get("name", "")
            running = (reports.get(name) or {}).get("imageID") or ""
            yield f"{field}[{name}]", container.get("image") or "", _without_runtime(running)


def _volume_images(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for volume in spec.get("volumes") or ():
        source = volume.get("image")
        if source is not None:
            yield f"volumes[{volume.get('name', '')}].image", source.get("reference") or "", ""


def _without_runtime(image_id: str) -> str:
    for prefix in _RUNTIME_PREFIXES:
        image_id = image_id.removeprefix(prefix)
    return image_id


@lru_cache(maxsize=4096)
def _reference(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except InvalidReference:
        return None
