"""The images of an EdgeModel, as its object in the cluster tells of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class RevisionImages:
    """A revision, what it is to the model (`current`, `target`), and its images by digest."""

    name: str
    roles: tuple[str, ...]
    images: tuple[Reference, ...]


def revision_images(model: Raw) -> tuple[RevisionImages, ...]:
    """Give the revisions that run and that are asked for. Before the first there are the images as built."""
    status = model.get("status") or {}
    roles: dict[str, list[str]] = {}
    for role in ("current", "target"):
        if status.get(f"{role}Revision"):
            roles.setdefault(status[f"{role}Revision"], []).append(role)
    known = {revision["name"]: revision for revision in status.get("revisions") or ()}
    found = [
        RevisionImages(name, tuple(played), _references(target["image"] for target in known[name]["targets"]))
        for name, played in roles.items()
        if name in known
    ]
    if found:
        return tuple(found)
    built = _references(image["image"] for image in status.get("images") or ())
    return (RevisionImages("", ("built",), built),) if built else ()


def images_of(model: Raw) -> tuple[tuple[Reference, str], ...]:
    """Give every image that the object tells of, with its build key where it is known."""
    status = model.get("status") or {}
    keys: dict[str, str] = {}
    for image in (*(status.get("images") or ()), *(status.get("retainedImages") or ())):
        keys.setdefault(image["image"], image.get("buildKey", ""))
    for revision in status.get("revisions") or ():
        for target in revision["targets"]:
            keys.setdefault(target["image"], "")
    return tuple((reference, keys[str(reference)]) for reference in _references(keys))


def _references(texts: Iterable[str]) -> tuple[Reference, ...]:
    found: dict[str, Reference] = {}
    for text in texts:
        try:
            found.setdefault(text, parse_reference(text))
        except InvalidReference:
            continue
    return tuple(found.values())
