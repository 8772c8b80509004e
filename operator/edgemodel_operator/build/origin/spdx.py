"""A bill of materials as SPDX 2.3 JSON (https://spdx.github.io/spdx-spec/v2.3/). Pure.

Model files are packages of purpose FILE: SPDX's own `files` ask for SHA-1, which nobody should rely on. There
is no clock: the document is as old as the files in the image, and equal images have equal documents.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from edgemodel_operator.build.origin.contents import (
    NAMESPACE,
    TOOL,
    Coverage,
    ImageContents,
    Material,
    NamedFile,
    image_purl,
)
from edgemodel_operator.build.origin.packages import Package
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.image import EPOCH

SPDX_TYPE = "application/spdx+json"

_NONE = "NOASSERTION"
_LICENCE_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_GAPS = {
    Coverage.UNKNOWN: "The runtime image does not say what it holds: it has no label edgemodel.dev/packages.",
    Coverage.INCOMPLETE: "It holds more than is listed: what a Dockerfile or a base of others brought.",
}


def make_spdx(image: ImageContents) -> bytes:
    """Make the document about one platform's image; the same contents give the same bytes."""
    model = image.model
    top = _package(
        "Image",
        model.name,
        model.version,
        sha256=image.subject.digest.removeprefix("sha256:"),
        purl=image.purl,
    )
    top["primaryPackagePurpose"] = "CONTAINER"
    runtime = _runtime(image)
    about = _package("Model", model.name, model.version)
    about["summary"] = f"A model in the format {model.format}."
    files = [_file(file) for file in model.files]
    sources = [_source(source) for source in model.sources]
    below = [_of_purl(package) for package in image.packages or ()]
    links = [
        _link("SPDXRef-DOCUMENT", "DESCRIBES", top),
        _link(top["SPDXID"], "DESCENDANT_OF", runtime),
        _link(top["SPDXID"], "CONTAINS", about),
        *(_link(about["SPDXID"], "CONTAINS", file) for file in files),
        *(_link(about["SPDXID"], "GENERATED_FROM", source) for source in sources),
        *(_link(runtime["SPDXID"], "CONTAINS", package) for package in below),
    ]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{model.name} {model.version} {image.subject.platform}",
        "documentNamespace": f"{NAMESPACE}/spdx/{image.subject.digest.replace(':', '-')}/{image.version}",
        "creationInfo": {"created": EPOCH, "creators": [f"Tool: {TOOL}-{image.version}"]},
        "packages": _once([top, runtime, about, *files, *sources, *below]),
        "relationships": _distinct(links),
    }
    if references := _references(image.packages or ()):
        document["hasExtractedLicensingInfos"] = references
    return canonical_json(document)


def _package(
    prefix: str, name: str, version: str = "", *, sha256: str = "", purl: str = "", location: str = _NONE
) -> dict[str, Any]:
    """Make a package of which nothing is known but this; unknown fields are left out."""
    package: dict[str, Any] = {
        "SPDXID": f"SPDXRef-{prefix}",
        "name": name,
        "downloadLocation": location,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
    }
    if version:
        package["versionInfo"] = version
    if sha256:
        package["checksums"] = [{"algorithm": "SHA256", "checksumValue": sha256}]
    if purl:
        package["externalRefs"] = [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}
        ]
    return package


def _runtime(image: ImageContents) -> dict[str, Any]:
    purl = image_purl("runtime", image.runtime)
    package = _package("Runtime", "runtime", sha256=image.runtime.removeprefix("sha256:"), purl=purl)
    package["primaryPackagePurpose"] = "CONTAINER"
    if image.coverage in _GAPS:
        package["comment"] = _GAPS[image.coverage]
    return package


def _of_purl(package: Package) -> dict[str, Any]:
    made = _package(
        _identifier("Package", package.purl),
        package.name,
        package.version,
        sha256=package.sha256,
        purl=package.purl,
    )
    return {**made, "licenseDeclared": package.license or _NONE}


def _file(file: NamedFile) -> dict[str, Any]:
    made = _package(_identifier("File", file.name, file.sha256), file.name, sha256=file.sha256)
    return {**made, "primaryPackagePurpose": "FILE"}


def _source(source: Material) -> dict[str, Any]:
    identifier = _identifier("Source", source.uri, source.sha256)
    made = _package(identifier, source.name or source.uri, sha256=source.sha256)
    # Where a file lies in a cluster is no address that SPDX knows.
    if re.match(r"https?://", source.uri):
        return {**made, "primaryPackagePurpose": "SOURCE", "downloadLocation": source.uri}
    return {**made, "primaryPackagePurpose": "SOURCE", "sourceInfo": source.uri}


def _identifier(prefix: str, *parts: str) -> str:
    """Make an identifier that two things share only if they are one."""
    return f"{prefix}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"


def _link(subject: str, kind: str, target: dict[str, Any]) -> dict[str, str]:
    return {"spdxElementId": subject, "relationshipType": kind, "relatedSpdxElement": target["SPDXID"]}


def _once(packages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({package["SPDXID"]: package for package in packages}.values())


def _distinct(links: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return list({tuple(link.values()): link for link in links}.values())


def _references(packages: Sequence[Package]) -> list[dict[str, str]]:
    """Say what the licences are that SPDX has no name for, and where their texts lie."""
    named: dict[str, str] = {}
    for package in packages:
        for reference in _LICENCE_REFERENCE.findall(package.license):
            named.setdefault(reference, package.name)
    return [
        {
            "licenseId": reference,
            "name": reference.removeprefix("LicenseRef-"),
            "extractedText": f"The text is in the image: /usr/share/doc/{package}/copyright",
        }
        for reference, package in sorted(named.items())
    ]
