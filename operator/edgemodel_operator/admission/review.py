"""AdmissionReview v1 as values: what is asked, which images it would run, and the answer. Pure.

Format: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
Reading is strict. Whatever is not understood raises InvalidReview, and the caller denies: an image that was
overlooked is an image that runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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

_MAY_LACK_TEMPLATE = frozenset({("", "replicationcontrollers")})
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


class InvalidReview(ValueError):  # noqa: N818 - reads as the fact it states
    """The request is no AdmissionReview that this webhook can judge; the message is a sentence."""


@dataclass(frozen=True, order=True)
class ImageUse:
    """One place in an object that names an image: `where` reads like `containers[server]`."""

    where: str
    image: str


@dataclass(frozen=True)
class Review:
    """What the API server asks, as far as it matters here.

    `old_images` are those of the object before an update. `name` ends in `*` when the API server has yet to
    make it up.
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
    old_images: tuple[ImageUse, ...] = ()

    @property
    def images_unchanged(self) -> bool:
        """Whether the request is an update that leaves every image where and what it was."""
        return self.operation == "UPDATE" and sorted(self.images) == sorted(self.old_images)

    @property
    def subject(self) -> str:
        """Name the object for messages and logs."""
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{resource} {self.namespace}/{self.name}"


def parse_review(document: object) -> Review:
    """Read an AdmissionReview request about a pod or a workload template. Raises InvalidReview."""
    review = _mapping(document, "the body")
    if review.get("apiVersion") != API_VERSION or review.get("kind") != KIND:
        raise InvalidReview(f"The body must be an {KIND} of {API_VERSION}.")
    request = _mapping(review.get("request"), "request")
    operation = _text(request, "operation")
    resource = _mapping(request.get("resource"), "request.resource")
    key = (_text(resource, "group", default=""), _text(resource, "resource"))
    if key not in _POD_SPECS:
        raise InvalidReview(f"This webhook does not judge {'/'.join(filter(None, key))}.")
    if operation not in {"CREATE", "UPDATE"}:
        raise InvalidReview(f"This webhook judges CREATE and UPDATE, not {operation[:32]}.")
    new = _mapping(request.get("object"), "request.object")
    old = _mapping(request.get("oldObject"), "request.oldObject") if operation == "UPDATE" else {}
    return Review(
        uid=request_uid(document),
        operation=operation,
        resource=key[1],
        subresource=_text(request, "subResource", default=""),
        namespace=_text(request, "namespace"),
        name=_name(request, new),
        user=_text(_mapping(request.get("userInfo", {}), "request.userInfo"), "username", default=""),
        dry_run=request.get("dryRun") is True,
        images=images_of(key, new),
        old_images=images_of(key, old) if old else (),
    )


def request_uid(document: object) -> str:
    """Read the identifier that the answer has to repeat. Raises InvalidReview."""
    request = _mapping(_mapping(document, "the body").get("request"), "request")
    uid = _text(request, "uid")
    if len(uid) > 128:
        raise InvalidReview("request.uid is longer than 128 characters.")
    return uid


def images_of(resource: tuple[str, str], document: _Json) -> tuple[ImageUse, ...]:
    """Give every use of an image in a pod or workload: containers of all three kinds and image volumes.

    `resource` is the API group and the plural name. Raises InvalidReview when a container or an image volume
    does not say which image it uses.
    """
    spec: Any = document
    for step in _POD_SPECS[resource]:
        spec = _mapping(spec, "the object").get(step)
        if spec is None and step == "template" and resource in _MAY_LACK_TEMPLATE:
            return ()
    spec = _mapping(spec, f"the pod spec of {resource[1]}")
    return (*_container_images(spec), *_volume_images(spec))


def make_answer(
    uid: str, *, allowed: bool, message: str = "", warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """Make the AdmissionReview that answers a request; a refusal becomes an HTTP 403 for the user."""
    response: dict[str, Any] = {"uid": uid, "allowed": allowed}
    if not allowed:
        status = {"code": 403, "reason": "Forbidden", "message": _cut(message, MAX_MESSAGE)}
        response["status"] = status
    if warnings:
        response["warnings"] = [_cut(warning, MAX_WARNING) for warning in warnings[:MAX_WARNINGS]]
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


def _container_images(spec: _Json) -> Iterator[ImageUse]:
    for field in _CONTAINER_LISTS:
        for index, item in enumerate(_list(spec, field)):
            container = _mapping(item, f"{field}[{index}]")
            where = f"{field}[{container.get('name') or index}]"
            yield ImageUse(where, _image(container.get("image"), f"{where}.image"))


def _volume_images(spec: _Json) -> Iterator[ImageUse]:
    for index, item in enumerate(_list(spec, "volumes")):
        volume = _mapping(item, f"volumes[{index}]")
        if volume.get("image") is not None:
            where = f"volumes[{volume.get('name') or index}].image"
            source = _mapping(volume["image"], where)
            yield ImageUse(where, _image(source.get("reference"), f"{where}.reference"))


def _image(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidReview(f"{where} names no image.")
    return value


def _name(request: _Json, document: _Json) -> str:
    if isinstance(request.get("name"), str) and request["name"]:
        return str(request["name"])
    metadata = _mapping(document.get("metadata") or {}, "object.metadata")
    return f"{metadata.get('generateName') or ''}*"


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


def _text(parent: _Json, field: str, *, default: str | None = None) -> str:
    value = parent.get(field, default)
    if not isinstance(value, str) or (default is None and not value):
        raise InvalidReview(f"{field} is not a text.")
    return value


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
