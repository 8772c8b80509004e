"""AdmissionReviews: whatever is in one, every image that its object would run is found, or it is refused."""

import json
from collections.abc import Hashable, Iterator, Sequence
from random import Random
from typing import Any

from edgemodel_operator.admission.review import InvalidReview, parse_review
from fuzz.trust.oracle import spliced

_IMAGE = "registry.plant-a.local:5000/models/line@sha256:" + "5d" * 32
_KINDS = (
    ("", "pods", "pod"), ("", "replicationcontrollers", "template"), ("apps", "deployments", "template"),
    ("apps", "replicasets", "template"), ("apps", "statefulsets", "template"),
    ("apps", "daemonsets", "template"),
    ("batch", "jobs", "template"), ("batch", "cronjobs", "job"), ("example.com", "pods", "pod"),
)  # fmt: skip
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def _object_of(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    template = {"template": {"spec": spec}}
    wrapped: dict[str, dict[str, Any]] = {
        "pod": {"spec": spec},
        "template": {"spec": template},
        "job": {"spec": {"jobTemplate": {"spec": template}}},
    }
    return {"metadata": {"name": "line", "namespace": "plant-a"}} | wrapped[kind]


def _review(random: Random) -> bytes:
    group, resource, kind = random.choice(_KINDS)
    request: dict[str, Any] = {
        "uid": "u-1",
        "operation": random.choice(("CREATE", "UPDATE", "UPDATE", "DELETE")),
        "resource": {"group": group, "version": "v1", "resource": resource},
        "namespace": "plant-a",
        "userInfo": {"username": "kim"},
        "object": _object_of(kind, _spec(random)),
        "oldObject": _object_of(kind, _spec(random)) if random.random() < 0.7 else None,
    }
    if random.random() < 0.2:
        request["subResource"] = random.choice(("ephemeralcontainers", "resize", "status", ""))
    document = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(document).encode()


def _spec(random: Random) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    for name in _CONTAINERS:
        if random.random() < 0.7:
            spec[name] = [
                random.choice(
                    ({"name": "a", "image": _IMAGE}, {"image": f"{number}"}, {"image": None}, 7, {})
                )
                if random.random() < 0.2
                else {"name": f"c{number}", "image": f"{_IMAGE}{number}"}
                for number in range(random.randint(0, 3))
            ]
    if random.random() < 0.5:
        volume: Any = random.choice(({"reference": _IMAGE}, {"reference": ""}, {}, None, "x"))
        spec["volumes"] = [{"name": "v", "image": volume}, {"name": "w", "emptyDir": {}}]
    return spec


def _images_in(kind: str, document: Any) -> Iterator[str]:
    """Find the images of a document by walking all of its pod spec."""
    steps = {"pod": ["spec"], "template": ["spec", "template", "spec"]}
    for step in steps.get(kind, ["spec", "jobTemplate", "spec", "template", "spec"]):
        document = document.get(step) if isinstance(document, dict) else None
    for parent, items in document.items() if isinstance(document, dict) else ():
        for item in items if isinstance(items, list) else ():
            image = item.get("image") if isinstance(item, dict) else None
            if parent in _CONTAINERS and isinstance(image, str):
                yield image
            if parent == "volumes" and isinstance(image, dict) and isinstance(image.get("reference"), str):
                yield image["reference"]


class ReviewTarget:
    """Fuzz the reader of reviews."""

    name = "review"
    seeds: Sequence[bytes] = tuple(_review(Random(number)) for number in range(12))
    words: Sequence[bytes] = (
        b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"0", b'""', b'"image":', b'"reference":',
        b'"containers":', b'"initContainers":', b'"ephemeralContainers":', b'"volumes":', b'"spec":',
        b'"pods"', b'"template":', b'"jobTemplate":', b'"object":', b'"oldObject":', b'"operation":',
        b'"UPDATE"', b'"CREATE"', b'"deployments"', b'"cronjobs"', b'"apps"', b'"batch"', b'"subResource":',
        b'"resize"', _IMAGE.encode(),
    )  # fmt: skip

    def make(self, random: Random) -> bytes:
        """Return a review of some object."""
        return _review(random) if random.random() < 0.8 else spliced(random, self.seeds)

    def check(self, data: bytes) -> Hashable:
        """Feed the input; return what kind of outcome it was."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return "no JSON"
        try:
            review = parse_review(document)
        except InvalidReview as refusal:
            return " ".join(str(refusal).split()[:5])
        request, found = document["request"], {use.image for use in review.images}
        group = request["resource"].get("group", "")
        (kind,) = {kind for *key, kind in _KINDS if key == [group, review.resource]}
        overlooked = set(_images_in(kind, request["object"])) - found
        assert not overlooked, f"overlooked: {overlooked}"
        return review.operation, review.resource, review.subresource, len(found)
