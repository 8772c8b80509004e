"""What the API server refuses by a CEL rule, the types refuse too, and each refusal is a sentence."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from edgemodel_operator.api.acceleratorclass import AcceleratorClass
from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.crd import KINDS, crd_document
from edgemodel_operator.api.edgemodel import EdgeModel
from edgemodel_operator.api.trustexception import TrustException
from edgemodel_operator.api.trustpolicy import TrustPolicy
from support.builders import make_model

Json = dict[str, Any]

PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
MODEL: Json = {"spec": make_model().with_golden().raw}
RUNTIME: Json = {"format": "ONNX", "variant": "onnxruntime-npu", "provider": "Npu"}
TFLITE: Json = RUNTIME | {"format": "TFLite"}
CLASS: Json = {"spec": {"runtimes": [RUNTIME], "sharing": "Shared"}}
POLICY: Json = {
    "spec": {
        "images": ["registry.example.com/**"],
        "authorities": [{"name": "plant", "keys": [{"data": PEM}]}],
    }
}
EXCEPTION: Json = {
    "spec": {
        "images": ["registry.example.com/line@sha256:" + "0" * 64],
        "namespaces": ["plant-a"],
        "expires": "2027-01-31T00:00:00Z",
        "reason": "the supplier signs it next week",
    }
}
VALID: dict[type[Schema], Json] = {
    EdgeModel: MODEL,
    AcceleratorClass: CLASS,
    TrustPolicy: POLICY,
    TrustException: EXCEPTION,
}
IDENTITY = {
    "issuer": "https://ci.plant-a.local",
    "subject": "https://ci.plant-a.local/models/line@main",
    "trustedRoot": {"name": "sigstore"},
}
ORIGIN = {"name": "origin", "predicateType": "https://slsa.dev/provenance/v1"}

HTTP = "spec.model.source.http"
OCI = {"oci": {"reference": "registry.example.com/models/line:1", "sha256": "0" * 64}}
PICTURES = "spec.model.preprocessing"
STRETCH = {"mode": "Stretch", "width": 8, "height": 8}
S3 = {"bucket": "models", "key": "line.onnx"}
FILE = {"url": "https://files.example.com/a.onnx"}
WITH_WEIGHTS = FILE | {"weights": {"url": "https://files.example.com/a.bin"}}
TFLITE_WITH_WEIGHTS = {"format": "TFLite", "version": "1", "source": {"http": WITH_WEIGHTS}}
SAVED_MODEL = {
    "format": "TFLite",
    "version": "1",
    "source": {"http": FILE},
    "convert": {"origin": "SavedModel"},
}
ARCHIVE = {"http": FILE, "archive": {}}
NO_ARCHIVE = MODEL["spec"]["image"] | {"builder": "Docker", "dockerfile": {"context": {"http": FILE}}}
DELETE = object()

REFUSED: tuple[tuple[type[Schema], str, Any, str], ...] = (
    (EdgeModel, f"{HTTP}.sha256", "ABC", "64 lower-case hex digits"),
    (EdgeModel, f"{HTTP}.sha256", "0" * 64 + "\n", "64 lower-case hex digits"),
    (EdgeModel, f"{HTTP}.url", "http://files.example.com/a.onnx", "url must start with https://"),
    (EdgeModel, f"{HTTP}.url", "https://user:secret@files.example.com/a", "user name or password"),
    (EdgeModel, f"{HTTP}.url", "ftp://files.example.com/a", "url must look like"),
    (EdgeModel, "spec.model.source", {}, "exactly one source"),
    (EdgeModel, "spec.model.source", MODEL["spec"]["model"]["source"] | OCI, "exactly one source"),
    (EdgeModel, "spec.model.source", {"oci": OCI["oci"] | {"reference": "line"}}, "must name its registry"),
    (EdgeModel, "spec.model", TFLITE_WITH_WEIGHTS, "a TFLite model is one file, so leave `weights` out"),
    (EdgeModel, "spec.model.source", {"http": WITH_WEIGHTS, "archive": {}}, "an archive holds all files"),
    (EdgeModel, "spec.model.source", {"s3": S3 | {"bucket": "s3://models"}}, "without s3://"),
    (EdgeModel, "spec.model.source", {"s3": S3 | {"endpoint": "http://s3.example.com"}}, "endpoint must"),
    (EdgeModel, "spec.model.source", {"pvc": {"claimName": "a", "path": "../b"}}, "relative and plain"),
    (EdgeModel, "spec.model.convert", {"origin": "Keras"}, "are converted to `format: ONNX`, Keras and"),
    (EdgeModel, "spec.model.convert", {"origin": "TorchScript"}, "does not say what it takes"),
    (EdgeModel, "spec.model", SAVED_MODEL, "a SavedModel is a folder"),
    (EdgeModel, "spec.image.builder", "Docker", "need a `dockerfile`"),
    (EdgeModel, "spec.image.dockerfile", {"context": ARCHIVE}, "need a `dockerfile`"),
    (EdgeModel, "spec.image", NO_ARCHIVE, "the context of a Dockerfile is an archive"),
    (EdgeModel, "spec.image", NO_ARCHIVE | {"dockerfile": {"context": ARCHIVE}}, "and needs its `sha256`"),
    (EdgeModel, "spec.model.format", "OpenVINO", "an OpenVINO IR is two files"),
    (EdgeModel, PICTURES, {"layout": "HW"}, "a layout without channels (NHW, HW) needs"),
    (EdgeModel, PICTURES, {"color": "GRAY", "mean": [1, 2, 3]}, "with `color: GRAY` there is one channel"),
    (EdgeModel, PICTURES, {"mean": [1, 2]}, "mean has one number, or one for each channel"),
    (EdgeModel, PICTURES, {"std": []}, "std has one number, or one for each channel"),
    (EdgeModel, f"{PICTURES}.resize", {"mode": "Stretch", "size": 1}, "the mode ShorterSide has a `size`"),
    (EdgeModel, f"{PICTURES}.resize", STRETCH | {"anchor": "Center"}, "belong to the mode Letterbox only"),
    (
        EdgeModel,
        f"{PICTURES}.resize",
        STRETCH | {"mode": "Letterbox", "padColor": [0, 0]},
        "padColor has one number, or one for each channel",
    ),
    (EdgeModel, f"{PICTURES}.classification", {"labels": ["a\nb"]}, "a label is one line of printable"),
    (EdgeModel, "spec.serving.ports", {"http": 8081}, "http and grpc need a port each"),
    (EdgeModel, "spec.serving.batching", {"mode": "Disabled", "maxBatchSize": 2}, "leave maxBatchSize"),
    (EdgeModel, "spec.image.repository", "registry.example.com/line:v1", "no tag and no digest"),
    (EdgeModel, "spec.image.repository", "registry.example.com/line@sha256:0", "no tag and no digest"),
    (EdgeModel, "spec.image.repository", "registry/models/line", "the port where the host has no dot"),
    (EdgeModel, "spec.image.repository", "registry:70000/line", "write host[:port]/path"),
    (EdgeModel, "spec.targets", [], "name at least one target"),
    (EdgeModel, "spec.health.golden.tolerance", "-1", "tolerance must be a decimal number"),
    (EdgeModel, "spec.health.golden.tolerance", "nan", "tolerance must be a decimal number"),
    (EdgeModel, "spec.rollout.waves", [], "name at least one wave"),
    (EdgeModel, "spec.rollout.waves", [{"nodes": 1, "percent": 1}], "exactly one size"),
    (EdgeModel, "spec.rollout.waves", [{"soakSeconds": 1}], "exactly one size"),
    (EdgeModel, "spec.rollout.waves", [{"percent": 0}], "a percent from 1 to 100"),
    (EdgeModel, "spec.rollout.waves", [{"percent": 101}], "a percent from 1 to 100"),
    (EdgeModel, "spec.rollout.waves", [{"nodes": 0}], "at least one node"),
    (AcceleratorClass, "spec.match", {"extendedResource": "npu"}, "a full resource name"),
    (AcceleratorClass, "spec.runtimes", [], "name at least one runtime"),
    (AcceleratorClass, "spec.runtimes", [RUNTIME | {"delegate": "/a.so"}], "only TFLite models are computed"),
    (AcceleratorClass, "spec.runtimes", [TFLITE | {"delegate": "a.so"}], "delegate must be the path of"),
    (AcceleratorClass, "spec.runtimes", [RUNTIME | {"providerOptions": {"a=": "b"}}], "must not hold a `=`"),
    (TrustPolicy, "spec.images", [], "name at least one image glob"),
    (TrustPolicy, "spec.authorities", [], "name at least one authority"),
    (TrustPolicy, "spec.authorities", [{"name": "a", "keys": [{}]}], "give the key once"),
    (
        TrustPolicy,
        "spec.authorities",
        [{"name": "a", "keys": [{"data": PEM, "secretRef": {"name": "b"}}]}],
        "give the key once",
    ),
    (TrustPolicy, "spec.authorities", [{"name": "a", "keys": [{"data": "AAAA"}]}], "public key in PEM form"),
    (TrustPolicy, "spec.authorities", [{"name": "a"}], "say how the authority is known"),
    (
        TrustPolicy,
        "spec.authorities",
        [{"name": "a", "keys": [{"data": PEM}], "keyless": IDENTITY}],
        "say how the authority is known",
    ),
    (
        TrustPolicy,
        "spec.authorities",
        [{"name": "a", "keyless": IDENTITY | {"issuerRegExp": ".*"}}],
        "name the issuer once",
    ),
    (
        TrustPolicy,
        "spec.authorities",
        [{"name": "a", "keyless": IDENTITY | {"subject": None}}],
        "name the subject once",
    ),
    (TrustPolicy, "spec.threshold", 2, "more authorities than the policy names"),
    (
        TrustPolicy,
        "spec.attestations",
        [ORIGIN | {"authorities": ["b"]}],
        "an attestation names an authority that is not among",
    ),
    (TrustPolicy, "spec.attestations", [ORIGIN | {"predicateType": "slsa"}], "must be a URI"),
    (TrustException, "spec.images", [], "name at least one image glob"),
    (TrustException, "spec.namespaces", [], "say where it applies"),
)

ONLY_IN_THE_API_SERVER = ("the name becomes that of a Service",)
"""Rules over metadata, which the types do not hold."""


@pytest.mark.parametrize(("kind", "path", "value", "rule"), REFUSED)
def test_the_types_refuse_what_a_rule_of_the_definition_refuses(
    kind: type[Schema], path: str, value: Any, rule: str
) -> None:
    kind.model_validate(VALID[kind])
    with pytest.raises(ValidationError):
        kind.model_validate(changed(VALID[kind], path.split("."), value))
    assert any(rule in message for message in rule_messages()), f"no rule says {rule!r}"


def test_every_rule_of_the_definitions_has_a_case() -> None:
    tried = {rule for _, _, _, rule in REFUSED} | set(ONLY_IN_THE_API_SERVER)
    without = [message for message in rule_messages() if not any(rule in message for rule in tried)]
    assert without == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        (EdgeModel, "spec.unknown", 1),
        (EdgeModel, "spec.model.format", "TensorFlow"),
        (EdgeModel, "spec.model.version", "-v1"),
        (EdgeModel, "spec.model.version", "v" * 64),
        (EdgeModel, "spec.rollout.maxFailures", 0),
        (EdgeModel, "spec.rollout.progressDeadlineSeconds", 29),
        (EdgeModel, "spec.serving.ports.http", 80),
        (EdgeModel, "spec.serving.ports.grpc", 65536),
        (EdgeModel, "spec.serving.batching.maxDelayMilliseconds", -1),
        (EdgeModel, "spec.serving.batching.mode", "Off"),
        (EdgeModel, "spec.serving.idleUnloadSeconds", 0),
        (EdgeModel, "spec.serving.maxCPUPercent", 101),
        (EdgeModel, "spec.model.preprocessing.scale", 0),
        (EdgeModel, "spec.model.preprocessing.crop", {"width": 4097, "height": 1}),
        (EdgeModel, "spec.image.platforms", ["windows/amd64"]),
        (AcceleratorClass, "spec.sharing", "Sometimes"),
        (AcceleratorClass, "spec.runtimes", DELETE),
        (TrustPolicy, "spec.mode", "Off"),
    ],
)
def test_the_types_refuse_what_the_schema_refuses(kind: type[Schema], path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(changed(VALID[kind], path.split("."), value))


def changed(raw: Json, path: list[str], value: Any) -> Json:
    result = copy.deepcopy(raw)
    parent = result
    for part in path[:-1]:
        parent = parent.setdefault(part, {})
    if value is DELETE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return result


def rule_messages() -> list[str]:
    return [message for kind in KINDS for message in _messages(crd_document(kind))]


def _messages(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _messages(item)
    elif isinstance(node, dict):
        for rule in node.get("x-kubernetes-validations", ()):
            yield rule["message"]
        for child in node.values():
            yield from _messages(child)
