"""What a runtime image is made of, as its own label says: written when it is assembled, never scanned for.

The label `edgemodel.dev/packages` of a configuration is canonical JSON, a list sorted by purl:

    [{"purl": "pkg:deb/debian/zlib1g@1:1.2.13?arch=amd64&upstream=zlib", "sha256": "…", "license": "Zlib"}, …]

`sha256` is that of the archive which was unpacked (a .deb, a wheel), `license` an SPDX expression; both are
left out where they are not known. Format of a purl: ECMA-427. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from edgemodel_operator.api.names import GROUP
from edgemodel_operator.oci.descriptor import canonical_json

PACKAGES_LABEL = f"{GROUP}/packages"
MAX_PACKAGES = 10_000

_PURL = re.compile(
    r"pkg:(?P<kind>[a-z][a-z0-9.+-]*)/(?P<path>[^@?#]+)(?:@(?P<version>[^?#]+))?(?:\?[^#]*)?(?:#.*)?"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class InvalidPackages(ValueError):  # noqa: N818 - reads as the fact it states
    """The label of a runtime image is none of ours; the message says where."""


@dataclass(frozen=True, order=True)
class Package:
    """A package in an image: its purl, the SHA-256 of its archive and its licence, empty where unknown."""

    purl: str
    sha256: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        if not _PURL.fullmatch(self.purl):
            raise InvalidPackages(f"{self.purl!r} is not a purl: pkg:type/name@version")
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise InvalidPackages(f"the sha256 of {self.purl} is {self.sha256!r}: 64 hex digits are expected")

    @property
    def name(self) -> str:
        """The name without its namespace."""
        return unquote(self._part("path").rpartition("/")[2])

    @property
    def version(self) -> str:
        """The version; empty where the purl has none."""
        return unquote(self._part("version"))

    @property
    def kind(self) -> str:
        """The type of the purl: `deb`, `pypi`, `generic`, `oci`, …"""
        return self._part("kind")

    def to_json(self) -> dict[str, str]:
        """Give the entry of the label."""
        known = {"purl": self.purl, "sha256": self.sha256, "license": self.license}
        return {name: value for name, value in known.items() if value}

    def _part(self, name: str) -> str:
        match = _PURL.fullmatch(self.purl)
        return (match[name] or "") if match else ""


def packages_label(packages: Iterable[Package]) -> str:
    """Give the text of the label; the order and repetition of the packages do not matter."""
    return canonical_json([package.to_json() for package in sorted(set(packages))]).decode()


def parse_packages(label: str) -> tuple[Package, ...]:
    """Read the text of the label; raises InvalidPackages."""
    try:
        entries = json.loads(label)
    except (ValueError, RecursionError) as error:
        raise InvalidPackages("it is not JSON") from error
    if not isinstance(entries, list) or len(entries) > MAX_PACKAGES:
        raise InvalidPackages(f"it is not a list of at most {MAX_PACKAGES} packages")
    return tuple(_parse(entry) for entry in entries)


def packages_of(config: bytes) -> tuple[Package, ...] | None:
    """Read what the configuration of an image says of its content; None where it says nothing.

    Raises InvalidPackages for a label that cannot be read: half a list would be worse than none.
    """
    container = json.loads(config).get("config")
    labels = container.get("Labels") if isinstance(container, Mapping) else None
    label = labels.get(PACKAGES_LABEL) if isinstance(labels, Mapping) else None
    return parse_packages(label) if isinstance(label, str) else None


def _parse(entry: object) -> Package:
    if not isinstance(entry, Mapping) or not all(isinstance(value, str) for value in entry.values()):
        raise InvalidPackages("an entry is not an object of texts")
    if not entry.keys() <= {"purl", "sha256", "license"}:
        raise InvalidPackages(f"an entry has the fields {', '.join(map(str, sorted(entry)))}")
    return Package(entry.get("purl", ""), entry.get("sha256", ""), entry.get("license", ""))
