"""AdmissionReview v1 as values: what is asked, which images it would start, and the answer. Pure.

Format: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
Reading is strict. Whatever is not understood raises InvalidReview, and the caller denies: an image that was
overlooked is an image that runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edgemodel_operator.oci.reference import is_digest

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"
MAX_MESSAGE = 4096
"""Characters of a refusal. A person reads it in a terminal; what is cut off is in our log."""
MAX_WARNINGS = 8
MAX_WARNING = 500

_Json: TypeAlias = Mapping[str, Any]

_POD_SPECS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): ("spec",),
    ("", "replicationcontrollers"): ("spec", "template", "spec"),
    ("apps", "deployments"): ("spec", "template", "spec"),
    ("apps", "replicasets"): ("spec", "template", "spec"),
    ("apps", "daemonsets"): ("spec", "template", "spec"),
    ("apps", "statefulsets"): ("spec", "template", "spec"),
    ("batch", "jobs"): ("spec", "template", "spec"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template", "spec"),
}
"""Group and resource → where its pod spec is."""

_PODS = ("", "pods")
_MIRROR = "kubernetes.io/config.mirror"
_MAY_LACK_TEMPLATE = frozenset({("", "replicationcontrollers")})
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


class InvalidReview(ValueError):  # noqa: N818 - reads as the fact it states
    """The request is no AdmissionReview that this webhook can judge; the message is a sentence."""


@dataclass(frozen=True)
class ImageUse:
    """One place in an object that names an image: `where` reads like `containers[server]`.

    `pointer` is the same place for a JSON patch (RFC 6901).
    """

    where: str
    image: str
    pointer: str = field(default="", compare=False)


@dataclass(frozen=True)
class Review:
    """What the API server asks, as far as it matters here.

    `images` are all that the object names, `before` those that it named before an update, and `starting`
    those that the request may start. `name` ends in `*` when the API server has yet to make it up.
    """

    uid: str
    operation: str
    resource: str
    subresource: str
    namespace: str
    name: str
    user: str
    dry_run: bool
    images: tuple[ImageUse, ...]
    starting: tuple[ImageUse, ...]
    before: tuple[ImageUse, ...] = ()
    mirror: bool = False
    """Whether a node shows what it runs without having been asked: a static pod."""

    @property
    def is_pod(self) -> bool:
        """Whether it is about a pod; else about a template for pods."""
        return self.resource == "pods"

    @property
    def subject(self) -> str:
        """Name the object for messages and logs."""
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{resource} {self.namespace}/{self.name}"


def parse_review(document: object) -> Review:
    """Read an AdmissionReview request about a pod or a workload template. Raises InvalidReview."""
    request = require_review(document)
    operation = text_in(request, "operation")
    resource = mapping_in(request, "resource")
    key = (text_in(resource, "group", default=""), text_in(resource, "resource"))
    if key not in _POD_SPECS:
        raise InvalidReview(f"This webhook does not judge {'/'.join(filter(None, key))}.")
    if operation not in {"CREATE", "UPDATE"}:
        raise InvalidReview(f"This webhook judges CREATE and UPDATE, not {operation[:32]}.")
    new = mapping_in(request, "object")
    old = mapping_in(request, "oldObject") if operation == "UPDATE" else None
    images = images_of(key, new)
    before = images_of(key, old) if old is not None else ()
    user = _mapping(request.get("userInfo", {}), "request.userInfo")
    return Review(
        uid=request_uid(document),
        operation=operation,
        resource=key[1],
        subresource=text_in(request, "subResource", default=""),
        namespace=text_in(request, "namespace"),
        name=_name(request, new),
        user=text_in(user, "username", default=""),
        dry_run=request.get("dryRun") is True,
        images=images,
        starting=images if old is None else _starting(key, (images, before), new, old),
        before=before,
        mirror=key == _PODS and _is_mirror(new, user),
    )


def require_review(document: object) -> _Json:
    """Give the request inside an AdmissionReview. Raises InvalidReview when it is none."""
    review = _mapping(document, "the body")
    if review.get("apiVersion") != API_VERSION or review.get("kind") != KIND:
        raise InvalidReview(f"The body must be an {KIND} of {API_VERSION}.")
    return mapping_in(review, "request")


def request_uid(document: object) -> str:
    """Read the identifier that the answer has to repeat. Raises InvalidReview."""
    request = _mapping(_mapping(document, "the body").get("request"), "request")
    uid = text_in(request, "uid")
    if len(uid) > 128:
        raise InvalidReview("request.uid is longer than 128 characters.")
    return uid


def images_of(resource: tuple[str, str], document: _Json) -> tuple[ImageUse, ...]:
    """Give every use of an image in a pod or workload: containers of all three kinds and image volumes.

    `resource` is the API group and the plural name. Raises InvalidReview when a container or an image volume
    does not say which image it uses.
    """
    spec = _pod_spec(resource, document)
    if spec is None:
        return ()
    path = "".join(f"/{step}" for step in _POD_SPECS[resource])
    return (*_container_images(spec, path), *_volume_images(spec, path))


def make_answer(
    uid: str, *, allowed: bool, message: str = "", warnings: Sequence[str] = (), patch: Sequence[_Json] = ()
) -> dict[str, Any]:
    """Make the AdmissionReview that answers a request; a refusal becomes an HTTP 403 for the user.

    `patch` is a JSON patch (RFC 6902).
    """
    response: dict[str, Any] = {"uid": uid, "allowed": allowed}
    if not allowed:
        status = {"code": 403, "reason": "Forbidden", "message": _cut(message, MAX_MESSAGE)}
        response["status"] = status
    if warnings:
        response["warnings"] = [_cut(warning, MAX_WARNING) for warning in warnings[:MAX_WARNINGS]]
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(list(patch)).encode()).decode()
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


def _starting(
    resource: tuple[str, str], uses: tuple[Sequence[ImageUse], Sequence[ImageUse]], new: _Json, old: _Json
) -> tuple[ImageUse, ...]:
    """Give the images that an update may start.

    1. An object that is being deleted lets its finalizers go: with the same images, nothing starts.
    2. The same pod spec starts nothing either: labels, owners, finalizers, fewer replicas. More replicas, or
       a job that is resumed, do, all of them.
    3. Else a digest that stays where it was is no news. A tag is: it can mean another image by now.

    The API server gives `old`, so a user cannot make it up.
    """
    images, before = uses
    metadata = _mapping(old.get("metadata") or {}, "oldObject.metadata")
    if metadata.get("deletionTimestamp") and set(images) <= set(before):  # (1)
        return ()
    if _pod_spec(resource, new) == _pod_spec(resource, old):  # (2)
        return tuple(images) if resource != _PODS and _grows(new, old) else ()
    return tuple(use for use in images if use not in before or not _is_pinned(use.image))  # (3)


def _is_pinned(image: str) -> bool:
    return is_digest(image.rpartition("@")[2])


def _grows(new: _Json, old: _Json) -> bool:
    spec, before = (_mapping(one.get("spec") or {}, "spec") for one in (new, old))
    resumed = before.get("suspend") is True and spec.get("suspend") is not True
    return resumed or _replicas(spec) > _replicas(before)


def _replicas(spec: _Json) -> int:
    replicas = spec.get("replicas")
    return replicas if isinstance(replicas, int) else 1


def _is_mirror(pod: _Json, user: _Json) -> bool:
    """Tell whether a node itself shows a static pod of its own.

    The annotation alone proves nothing; the user does, whom the API server has authenticated. Such a pod runs
    already, and is never started from the API: refusing it would only hide it from the audit.
    """
    metadata = _mapping(pod.get("metadata") or {}, "object.metadata")
    spec = _mapping(pod.get("spec") or {}, "object.spec")
    groups = user.get("groups")
    return (
        _MIRROR in _mapping(metadata.get("annotations") or {}, "object.metadata.annotations")
        and bool(spec.get("nodeName"))
        and user.get("username") == f"system:node:{spec.get('nodeName')}"
        and isinstance(groups, list)
        and "system:nodes" in groups
    )


def _pod_spec(resource: tuple[str, str], document: _Json) -> _Json | None:
    """Give the pod spec; None for a controller whose template is somewhere else."""
    spec: Any = document
    for step in _POD_SPECS[resource]:
        spec = _mapping(spec, "the object").get(step)
        if spec is None and step == "template" and resource in _MAY_LACK_TEMPLATE:
            return None
    return _mapping(spec, f"the pod spec of {resource[1]}")


def _container_images(spec: _Json, path: str) -> Iterator[ImageUse]:
    for field_name in _CONTAINER_LISTS:
        for index, item in enumerate(_list(spec, field_name)):
            container = _mapping(item, f"{field_name}[{index}]")
            where = f"{field_name}[{container.get('name') or index}]"
            image = _image(container.get("image"), f"{where}.image")
            yield ImageUse(where, image, f"{path}/{field_name}/{index}/image")


def _volume_images(spec: _Json, path: str) -> Iterator[ImageUse]:
    for index, item in enumerate(_list(spec, "volumes")):
        volume = _mapping(item, f"volumes[{index}]")
        if volume.get("image") is not None:
            where = f"volumes[{volume.get('name') or index}].image"
            source = _mapping(volume["image"], where)
            image = _image(source.get("reference"), f"{where}.reference")
            yield ImageUse(where, image, f"{path}/volumes/{index}/image/reference")


def _image(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidReview(f"{where} names no image.")
    return value


def _name(request: _Json, document: _Json) -> str:
    if isinstance(request.get("name"), str) and request["name"]:
        return str(request["name"])
    metadata = _mapping(document.get("metadata") or {}, "object.metadata")
    return f"{metadata.get('generateName') or ''}*"


def mapping_in(parent: _Json, field_name: str) -> _Json:
    """Give a JSON object inside another. Raises InvalidReview when it is none."""
    return _mapping(parent.get(field_name), field_name)


def text_in(parent: _Json, field_name: str, *, default: str | None = None) -> str:
    """Give a text inside a JSON object; without `default` it must be there. Raises InvalidReview."""
    value = parent.get(field_name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise InvalidReview(f"{field_name} is not a text.")
    return value


def _mapping(value: object, what: str) -> _Json:
    if not isinstance(value, dict):
        raise InvalidReview(f"{what} is not a JSON object.")
    return value


def _list(spec: _Json, field: str) -> Sequence[Any]:
    value = spec.get(field)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidReview(f"{field} is not a list.")
    return value


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
