"""What a node remembers across power cuts, in one file: the policies as last read, and what was verified.

Two read it: the agent, when it starts while the API server is away, and the client that containerd runs, when
the agent does not answer. For the latter it holds everything in a form that needs none of our code.
"""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from edgemodel_operator.api.trustexception import MAX_EXCEPTION_DAYS
from edgemodel_operator.api.trustpolicy import Mode
from edgemodel_operator.core.exemption import Exemption
from edgemodel_operator.core.glob import glob_pattern
from edgemodel_operator.core.trust import AnyPolicy, Policy, mode_of

VERSION = 1
MAX_IMAGES = 1024
UNKNOWN_DEMAND = ""
"""The demand of a policy that was not understood, or whose keys were never found: nothing satisfies it."""

_log = logging.getLogger(__name__)
_Json = dict[str, Any]


@dataclass(frozen=True)
class Fixed:
    """What does not change while the agent runs.

    `pod` is the folder that the kubelet keeps for the agent's pod as long as the pod belongs to this node;
    `own` the agent's own image (`name@digest`); `exempt` globs over `host[:port]/repository`.
    """

    pod: str
    own: str
    exempt: tuple[str, ...]
    deny_unmatched: bool


@dataclass
class Record:
    """The memory of a node. `verdicts` maps `name@digest` to the demands that were found to hold.

    `demands` maps the hash of a policy to the fingerprint of what it demanded when all of its keys could be
    read last.
    """

    policies: tuple[_Json, ...] = ()
    exceptions: tuple[_Json, ...] = ()
    demands: dict[str, str] = field(default_factory=dict)
    verdicts: OrderedDict[str, tuple[str, ...]] = field(default_factory=OrderedDict)

    def holds(self, image: str, demand: str) -> bool:
        """Say whether a demand was found to hold for an image."""
        return demand != UNKNOWN_DEMAND and demand in self.verdicts.get(image, ())

    def keep(self, image: str, demand: str) -> bool:
        """Remember that a demand holds for an image; false if that was known. The oldest make room."""
        if self.holds(image, demand):
            return False
        self.verdicts[image] = (*self.verdicts.pop(image, ()), demand)
        while len(self.verdicts) > MAX_IMAGES:
            self.verdicts.popitem(last=False)
        return True

    def prune(self) -> bool:
        """Forget verdicts on demands that no policy makes any more; tell whether there were any."""
        current, before = set(self.demands.values()), dict(self.verdicts)
        for image, demands in list(self.verdicts.items()):
            kept = tuple(demand for demand in demands if demand in current)
            if kept:
                self.verdicts[image] = kept
            else:
                del self.verdicts[image]
        return dict(self.verdicts) != before


def images_of(policy: AnyPolicy) -> tuple[str, ...]:
    """Give the globs of the images that a policy covers."""
    return policy.spec.images if isinstance(policy, Policy) else policy.images


def is_local(policy: AnyPolicy) -> bool:
    """Say whether a policy speaks about some namespaces only. A pull knows none: it is not applied here."""
    namespaces = policy.spec.namespaces if isinstance(policy, Policy) else policy.namespaces
    return bool(namespaces) and not {"*", "**"} & set(namespaces)


def to_document(
    record: Record, fixed: Fixed, policies: Iterable[AnyPolicy], exemptions: Iterable[Exemption]
) -> _Json:
    """Give the record as the JSON document that client.py reads."""
    return {
        "version": VERSION,
        "pod": fixed.pod,
        "own": [fixed.own],
        "exempt": [glob_pattern(glob) for glob in fixed.exempt],
        "unmatched": "Deny" if fixed.deny_unmatched else "Allow",
        "policies": [_policy(policy, record.demands) for policy in policies],
        "exceptions": [_exception(exemption) for exemption in exemptions],
        "verdicts": {image: list(demands) for image, demands in record.verdicts.items()},
        "source": {
            "policies": list(record.policies),
            "exceptions": list(record.exceptions),
            "demands": record.demands,
        },
    }


def from_document(document: object) -> Record:
    """Read a record again. Raises ValueError when it is not one of this version."""
    try:
        if not isinstance(document, dict) or document["version"] != VERSION:
            raise ValueError("it is of another version")
        source = document["source"]
        return Record(
            policies=_objects(source["policies"]),
            exceptions=_objects(source["exceptions"]),
            demands={str(name): str(demand) for name, demand in source["demands"].items()},
            verdicts=OrderedDict(
                (str(image), tuple(str(demand) for demand in demands))
                for image, demands in document["verdicts"].items()
            ),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a part of it is missing or of another kind") from error


def load_record(path: Path) -> Record | None:
    """Read the record of an earlier start; None when there is none that can be read."""
    try:
        return from_document(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("The record %s is not used: %s", path, error)
        return None


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file at once and for good: a power cut leaves the old or the new content, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new and changed names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _policy(policy: AnyPolicy, demands: Mapping[str, str]) -> _Json:
    images, demand = images_of(policy), UNKNOWN_DEMAND
    if isinstance(policy, Policy):
        demand = demands.get(policy.hash, UNKNOWN_DEMAND)
    return {
        "name": policy.name,
        "images": [glob_pattern(glob) for glob in images],
        "demand": demand,
        "enforced": mode_of(policy) is Mode.ENFORCE and not is_local(policy),
    }


def _exception(exemption: Exemption) -> _Json:
    end = exemption.spec.end
    return {
        "name": exemption.name,
        "images": [glob_pattern(glob) for glob in exemption.spec.images],
        "policies": list(exemption.spec.policies),
        "from": (end - timedelta(days=MAX_EXCEPTION_DAYS)).timestamp(),
        "until": end.timestamp(),
    }


def _objects(value: Sequence[object]) -> tuple[_Json, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise TypeError("not a list of objects")
    return tuple(value)
