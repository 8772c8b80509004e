"""How the trail of an image is written down, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edgemodel_operator.cli.inspect_report import size_text
from edgemodel_operator.cli.kubectl_trail import ModelSource, Sighting, Statement, Trail
from edgemodel_operator.cli.verify_report import Check
from edgemodel_operator.signing.verdict import Trusted

SECTIONS = ("source", "build", "signatures", "attestations", "events", "nodes", "not known")
"""The headings, which stand alone on their lines."""
_DIGEST_LENGTH = len("sha256:") + 12


def trail_lines(trail: Trail) -> list[str]:
    """Write a trail for people: source → build → signatures → attestations → events → nodes."""
    sections: Sequence[tuple[str, Sequence[str], str]] = (
        ("source", list(_source_lines(trail)), "no EdgeModel in the cluster tells of this image"),
        ("build", list(_build_lines(trail)), "no build is known"),
        ("signatures", list(_signature_lines(trail)), "nobody vouches"),
        ("attestations", [_statement_line(one) for one in trail.statements], "none by a known authority"),
        ("events", [_event_line(one) for one in trail.events], "none (the cluster keeps events for an hour)"),
        ("nodes", [_sighting_line(one) for one in trail.sightings], "it runs nowhere"),
        ("not known", trail.problems, ""),
    )
    lines = [str(trail.image)]
    for heading, found, otherwise in sections:
        if found or otherwise:
            lines += ["", heading, *(f"  {line}" for line in (found or (otherwise,)))]
    return lines


def trail_document(trail: Trail) -> dict[str, Any]:
    """Write a trail for programs."""
    provenance = trail.provenance
    return {
        "image": str(trail.image),
        "sources": [asdict(one) for one in trail.sources],
        "provenance": dict(provenance.predicate) if provenance else None,
        "verification": trail.verification.document(),
        "attestations": [
            {name: value for name, value in asdict(one).items() if name != "predicate"}
            for one in trail.statements
        ],
        "events": [asdict(one) for one in trail.events],
        "nodes": [asdict(one) for one in trail.sightings],
        "problems": list(trail.problems),
    }


def source_place(source: Mapping[str, Any]) -> str:
    """Say in one text where a source of an EdgeModel lies."""
    for kind, given in source.items():
        if isinstance(given, Mapping) and kind != "archive":
            named = [
                given.get(name) for name in ("url", "reference", "endpoint", "bucket", "claimName", "name")
            ]
            parts = [*named, given.get("path") or given.get("key")]
            return f"{kind} {' '.join(str(part) for part in parts if part)}"
    return "unknown"


def _source_lines(trail: Trail) -> Iterator[str]:
    for one in trail.sources:
        yield f"EdgeModel {one.model}, version {one.version}: {source_place(one.source)}"
        for file in one.files:
            size = size_text(file.get("size", 0))
            yield f"  {file.get('name', '')}  sha256:{file.get('sha256', '')}  {size}"


def _build_lines(trail: Trail) -> Iterator[str]:
    for source in trail.sources:
        yield from _model_build(source)
    provenance = trail.provenance
    if provenance is not None:
        yield from _provenance_lines(provenance)


def _model_build(source: ModelSource) -> Iterator[str]:
    if source.build_key:
        yield f"build key {source.build_key} (EdgeModel {source.model})"
    if source.built_at:
        yield f"built by {source.built_at} (EdgeModel {source.model})"


def _provenance_lines(provenance: Statement) -> Iterator[str]:
    run = _mapping(_mapping(provenance.predicate.get("runDetails")).get("builder"))
    versions = ", ".join(f"{name} {value}" for name, value in _mapping(run.get("version")).items())
    yield f"builder {run.get('id', '')} {versions} (attested by {_by(provenance)})"
    definition = _mapping(provenance.predicate.get("buildDefinition"))
    yield f"build key {_mapping(definition.get('internalParameters')).get('buildKey', '')} (attested)"
    materials = definition.get("resolvedDependencies")
    for one in materials if isinstance(materials, list) else ():
        digest = _mapping(_mapping(one).get("digest")).get("sha256", "")
        yield f"from {_mapping(one).get('uri', '')} sha256:{digest} (attested)"


def _signature_lines(trail: Trail) -> Iterator[str]:
    for check in trail.verification.checks:
        yield f"{check.title}: {check.state.value}"
        yield from (f"  {line}" for line in _evidence_lines(check))
    if trail.verification.missing:
        yield trail.verification.missing


def _evidence_lines(check: Check) -> Iterator[str]:
    if not isinstance(check.verdict, Trusted):
        yield check.lines()[-1].strip()
    for evidence in check.verdict.evidence if check.verdict is not None else ():
        for one in evidence.signatures:
            names = ", ".join(one.authorities)
            yield f"{one.format.value} signature of {_short(evidence.digest)} by {names}, key {one.key}"


def _statement_line(one: Statement) -> str:
    return f"{one.predicate_type}  {one.format}  of {_short(one.subject)}  by {_by(one)}"


def _event_line(one: Any) -> str:
    return f"{one.time}  {one.reason}  {one.about}: {one.message}"


def _sighting_line(one: Sighting) -> str:
    since = f"since {one.since}" if one.since else "not started"
    return f"{one.node or '(no node)'}  {one.namespace}/{one.pod} {one.container}  {since}"


def _by(one: Statement) -> str:
    return f"{', '.join(one.authorities)}, key {one.key}"


def _short(digest: str) -> str:
    return digest[:_DIGEST_LENGTH]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
