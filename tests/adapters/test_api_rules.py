"""What `kubectl apply` refuses on a real API server, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.base import Cluster
from cluster.commands import CommandFailed
from support.own_group import DELETE, HTTP, MINIMAL, OCI, PEM, REPOSITORY, SHA256, Json, apply, changed, make

pytestmark = pytest.mark.needs("api")


def authority(**key: Any) -> list[Json]:
    """Give a list of one authority with this key."""
    return [{"name": "plant-a", "keys": [key]}]


IDENTITY = {
    "issuer": "https://ci.plant-a.local",
    "subject": "https://ci.plant-a.local/models/line@main",
    "trustedRoot": {"name": "sigstore"},
}
ORIGIN = {"name": "origin", "predicateType": "https://slsa.dev/provenance/v1"}
WEIGHTS = {"url": "https://models.plant-a.local/line.bin", "sha256": SHA256}
PLAIN_WEIGHTS = {"url": "http://models.plant-a.local/line.bin", "sha256": SHA256}
REFUSED: dict[str, tuple[str, str, Any, str]] = {
    "unknown field": ("EdgeModel", "model.sorce", {}, 'unknown field "spec.model.sorce"'),
    "unknown section": ("EdgeModel", "scaling", {}, 'unknown field "spec.scaling"'),
    "two sources": ("EdgeModel", "model.source.oci", OCI, "give exactly one source: write one of"),
    "no source": ("EdgeModel", "model.source", {}, "give exactly one source: write one of"),
    "source missing": ("EdgeModel", "model.source", DELETE, "spec.model.source: Required value"),
    "another format": ("EdgeModel", "model.format", "PyTorch", 'values: "ONNX", "TFLite", "OpenVINO"'),
    "IR without its weights": (
        "EdgeModel",
        "model.format",
        "OpenVINO",
        "an OpenVINO IR is two files, so give its .bin as `weights` of the source",
    ),
    "weights of a single file": (
        "EdgeModel",
        "model",
        {"format": "TFLite", "version": "1", "source": {"http": HTTP | {"weights": WEIGHTS}}},
        "a TFLite model is one file, so leave `weights` out",
    ),
    "weights of an archive": (
        "EdgeModel",
        "model.source",
        {"http": HTTP | {"weights": WEIGHTS}, "archive": {}},
        "an archive holds all files of the model: leave `weights` out",
    ),
    "bucket with its scheme": (
        "EdgeModel",
        "model.source",
        {"s3": {"bucket": "s3://models", "key": "line.onnx"}},
        "bucket must be 3 to 63 lower-case letters, digits, dots and hyphens, without s3://",
    ),
    "store over plain http": (
        "EdgeModel",
        "model.source",
        {"s3": {"endpoint": "http://s3.plant-a.local", "bucket": "models", "key": "line.onnx"}},
        "endpoint must start with https://; to load over plain http inside a plant, add `insecure: true`",
    ),
    "way out of a volume": (
        "EdgeModel",
        "model.source",
        {"pvc": {"claimName": "models", "path": "../line.onnx"}},
        "a path is relative and plain: write folder/model.onnx, without a leading / and without `..`",
    ),
    "conversion to another format": (
        "EdgeModel",
        "model.convert",
        {"origin": "Keras"},
        "PyTorchExport and TorchScript are converted to `format: ONNX`, Keras and SavedModel to",
    ),
    "TorchScript without inputs": (
        "EdgeModel",
        "model.convert",
        {"origin": "TorchScript"},
        "a TorchScript module does not say what it takes: give `inputs` with datatype and shape",
    ),
    "SavedModel that is no archive": (
        "EdgeModel",
        "model",
        {"format": "TFLite", "version": "1", "source": {"http": HTTP}, "convert": {"origin": "SavedModel"}},
        "a SavedModel is a folder: give an archive of it, and add `archive: {path: FOLDER}`",
    ),
    "builder without its Dockerfile": (
        "EdgeModel",
        "image.builder",
        "Docker",
        "`builder: Docker` and `builder: Buildah` need a `dockerfile`, `builder: Graft` takes none",
    ),
    "context of unknown content": (
        "EdgeModel",
        "image",
        {
            "repository": REPOSITORY,
            "builder": "Docker",
            "dockerfile": {"context": {"http": {"url": HTTP["url"]}, "archive": {}}},
        },
        "the context of a Dockerfile comes from `http`, `s3` or `oci`, and needs its `sha256`",
    ),
    "context that is no archive": (
        "EdgeModel",
        "image",
        {"repository": REPOSITORY, "builder": "Docker", "dockerfile": {"context": {"http": HTTP}}},
        "the context of a Dockerfile is an archive: add `archive: {}` beside its source",
    ),
    "weights over plain http": (
        "EdgeModel",
        "model",
        {"format": "OpenVINO", "version": "1", "source": {"http": HTTP | {"weights": PLAIN_WEIGHTS}}},
        "url must start with https://; to load over plain http inside a plant, add `insecure: true`",
    ),
    "resize without a size": (
        "EdgeModel",
        "model.preprocessing",
        {"resize": {"mode": "ShorterSide", "width": 8, "height": 8}},
        "a resize of the mode ShorterSide has a `size`, the other modes have `width` and `height`",
    ),
    "frame without a letterbox": (
        "EdgeModel",
        "model.preprocessing",
        {"resize": {"mode": "Stretch", "width": 8, "height": 8, "padColor": [0]}},
        "padColor and anchor belong to the mode Letterbox only: leave them out",
    ),
    "colours of a gray picture": (
        "EdgeModel",
        "model.preprocessing",
        {"color": "GRAY", "std": [1, 1, 1]},
        "with `color: GRAY` there is one channel: give one number in mean, std and padColor",
    ),
    "layout without channels": (
        "EdgeModel",
        "model.preprocessing",
        {"layout": "NHW"},
        "a layout without channels (NHW, HW) needs `color: GRAY`",
    ),
    "two of three channels": (
        "EdgeModel",
        "model.preprocessing",
        {"mean": [0.5, 0.5]},
        "mean has one number, or one for each channel",
    ),
    "scale of nothing": (
        "EdgeModel",
        "model.preprocessing",
        {"scale": 0},
        "spec.model.preprocessing.scale in body should be greater than 0",
    ),
    "label of two lines": (
        "EdgeModel",
        "model.preprocessing",
        {"classification": {"labels": ["up", "down\nleft"]}},
        "a label is one line of printable characters",
    ),
    "version with a space": ("EdgeModel", "model.version", "1 beta", "spec.model.version"),
    "sha256 that is not hex": (
        "EdgeModel",
        "model.source.http.sha256",
        "g" * 64,
        "sha256 must be 64 lower-case hex digits: write what `sha256sum FILE` prints",
    ),
    "sha256 in upper case": ("EdgeModel", "model.source.http.sha256", "A" * 64, "64 lower-case hex digits"),
    "sha256 too short": ("EdgeModel", "model.source.http.sha256", "0" * 63, "64 lower-case hex digits"),
    "sha256 with its prefix": (
        "EdgeModel",
        "model.source.http.sha256",
        f"sha256:{SHA256}",
        "64 lower-case hex digits",
    ),
    "plain http": (
        "EdgeModel",
        "model.source.http.url",
        "http://models.plant-a.local/line.onnx",
        "url must start with https://; to load over plain http inside a plant, add `insecure: true`",
    ),
    "password in the url": (
        "EdgeModel",
        "model.source.http.url",
        "https://me:secret@models.plant-a.local/line.onnx",
        "url must look like https://host/path and must not hold a user name or password",
    ),
    "file url": ("EdgeModel", "model.source.http.url", "file:///etc/passwd", "url must look like https://"),
    "artifact without registry": (
        "EdgeModel",
        "model.source",
        {"oci": {"reference": "line", "sha256": SHA256}},
        "reference must name its registry: write host[:port]/repository@sha256:<digest> or :tag",
    ),
    "repository with tag": (
        "EdgeModel",
        "image.repository",
        f"{REPOSITORY}:latest",
        "repository takes no tag and no digest: write host[:port]/path, the path in lower case",
    ),
    "repository with digest": (
        "EdgeModel",
        "image.repository",
        f"{REPOSITORY}@sha256:{SHA256}",
        "repository takes no tag and no digest",
    ),
    "repository in upper case": (
        "EdgeModel",
        "image.repository",
        "registry.plant-a.local:5000/Models/line",
        "the path in lower case",
    ),
    "repository whose host is none": (
        "EdgeModel",
        "image.repository",
        "registry/models/line",
        "the port where the host has no dot",
    ),
    "repository without registry": ("EdgeModel", "image.repository", "line", "write host[:port]/path"),
    "no platform of that name": ("EdgeModel", "image.platforms", ["linux/riscv64"], "linux/amd64"),
    "secret given twice": (
        "EdgeModel",
        "image.pullSecrets",
        [{"name": "a"}, {"name": "a"}],
        "Duplicate value",
    ),
    "no targets": ("EdgeModel", "targets", [], "name at least one target, for example [{accelerator: cpu}]"),
    "targets missing": ("EdgeModel", "targets", DELETE, "spec.targets: Required value"),
    "target given twice": (
        "EdgeModel",
        "targets",
        [{"accelerator": "cpu"}, {"accelerator": "cpu"}],
        'spec.targets[1]: Duplicate value: {"accelerator":"cpu"}',
    ),
    "another placement": ("EdgeModel", "placement.mode", "Everywhere", 'supported values: "PerNode"'),
    "negative tolerance": (
        "EdgeModel",
        "health.golden",
        {"configMap": {"name": "golden"}, "tolerance": "-0.1"},
        'tolerance must be a decimal number that is not negative, in quotes: for example "1e-2"',
    ),
    "tolerance without quotes": (
        "EdgeModel",
        "health.golden",
        {"configMap": {"name": "golden"}, "tolerance": 0.1},
        "must be of type string",
    ),
    "tolerance that is no number": (
        "EdgeModel",
        "health.golden",
        {"configMap": {"name": "golden"}, "tolerance": "NaN"},
        "tolerance must be a decimal number",
    ),
    "negative probation": (
        "EdgeModel",
        "health.probationSeconds",
        -1,
        "spec.health.probationSeconds in body should be greater than or equal to 0",
    ),
    "wave of 0 %": (
        "EdgeModel",
        "rollout.waves",
        [{"percent": 0}],
        "a wave needs a percent from 1 to 100: one of 0 % would update nothing, leave it out instead",
    ),
    "wave of 101 %": ("EdgeModel", "rollout.waves", [{"percent": 101}], "a percent from 1 to 100"),
    "wave of no node": ("EdgeModel", "rollout.waves", [{"nodes": 0}], "a wave needs at least one node"),
    "wave of both sizes": (
        "EdgeModel",
        "rollout.waves",
        [{"nodes": 1, "percent": 10}],
        "give each wave exactly one size: `nodes: 1` or `percent: 25`",
    ),
    "wave of no size": ("EdgeModel", "rollout.waves", [{"soakSeconds": 5}], "exactly one size"),
    "no waves": ("EdgeModel", "rollout.waves", [], "name at least one wave, for example [{percent: 100}]"),
    "no failure allowed": ("EdgeModel", "rollout.maxFailures", 0, "greater than or equal to 1"),
    "another reaction": ("EdgeModel", "rollout.onFailure", "Ignore", 'supported values: "Rollback", "Pause"'),
    "privileged port": ("EdgeModel", "serving.ports.http", 80, "greater than or equal to 1024"),
    "no such port": ("EdgeModel", "serving.ports.http", 65536, "less than or equal to 65535"),
    "one port for both": (
        "EdgeModel",
        "serving.ports",
        {"http": 8081},
        "http and grpc need a port each and have the same: grpc is 8081 unless you write another",
    ),
    "bounds of no batching": (
        "EdgeModel",
        "serving.batching",
        {"mode": "Disabled", "maxBatchSize": 4},
        "with `mode: Disabled` leave maxBatchSize and maxDelayMilliseconds out",
    ),
    "more CPU than there is": (
        "EdgeModel",
        "serving.maxCPUPercent",
        101,
        "spec.serving.maxCPUPercent in body should be less than or equal to 100",
    ),
    "class without sharing": ("AcceleratorClass", "sharing", DELETE, "spec.sharing: Required value"),
    "class without runtimes": ("AcceleratorClass", "runtimes", DELETE, "spec.runtimes: Required value"),
    "class with no runtime": ("AcceleratorClass", "runtimes", [], "name at least one runtime, for example"),
    "delegate of another format": (
        "AcceleratorClass",
        "runtimes",
        [{"format": "ONNX", "variant": "a", "provider": "CPU", "delegate": "/usr/lib/libedgetpu.so.1"}],
        "only TFLite models are computed by a delegate: leave it out for other formats",
    ),
    "delegate by its name": (
        "AcceleratorClass",
        "runtimes",
        [{"format": "TFLite", "variant": "a", "provider": "CPU", "delegate": "libedgetpu.so.1"}],
        "delegate must be the path of a library in the pod, beginning with /",
    ),
    "option with two values": (
        "AcceleratorClass",
        "runtimes",
        [{"format": "ONNX", "variant": "a", "provider": "CPU", "providerOptions": {"a=b": "c"}}],
        "the name of a provider option has at most 128 characters and must not hold a `=`",
    ),
    "two runtimes for a format": (
        "AcceleratorClass",
        "runtimes",
        [{"format": "ONNX", "variant": name, "provider": "CPU"} for name in ("a", "b")],
        'spec.runtimes[1]: Duplicate value: {"format":"ONNX"}',
    ),
    "resource without domain": (
        "AcceleratorClass",
        "match",
        {"extendedResource": "npu"},
        "extendedResource must be a full resource name such as vendor.example/npu",
    ),
    "variable given twice": (
        "AcceleratorClass",
        "pod",
        {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        "Duplicate value",
    ),
    "no authorities": (
        "TrustPolicy",
        "authorities",
        [],
        "name at least one authority: a policy without one could never hold",
    ),
    "no images": ("TrustPolicy", "images", [], "name at least one image glob, for example"),
    "key given twice": (
        "TrustPolicy",
        "authorities",
        authority(data=PEM, secretRef={"name": "public"}),
        "give the key once: either the PEM text in `data` or a Secret in `secretRef`",
    ),
    "no key": ("TrustPolicy", "authorities", authority(), "give the key once"),
    "key that is not PEM": (
        "TrustPolicy",
        "authorities",
        authority(data="AAAA"),
        "data must be a public key in PEM form, beginning with -----BEGIN PUBLIC KEY-----",
    ),
    "private key": (
        "TrustPolicy",
        "authorities",
        authority(data=PEM.replace("PUBLIC", "PRIVATE")),
        "data must be a public key in PEM form",
    ),
    "authority without key or identity": (
        "TrustPolicy",
        "authorities",
        [{"name": "plant-a"}],
        "say how the authority is known: either by `keys` or as `keyless` identity",
    ),
    "issuer given twice": (
        "TrustPolicy",
        "authorities",
        [{"name": "ci", "keyless": IDENTITY | {"issuerRegExp": ".*"}}],
        "name the issuer once: exactly in `issuer`, or as a pattern in `issuerRegExp`",
    ),
    "subject given twice": (
        "TrustPolicy",
        "authorities",
        [{"name": "ci", "keyless": IDENTITY | {"subjectRegExp": ".*"}}],
        "name the subject once: exactly in `subject`, or as a pattern in `subjectRegExp`",
    ),
    "threshold that nobody reaches": (
        "TrustPolicy",
        "threshold",
        2,
        "threshold asks for more authorities than the policy names: it could never hold",
    ),
    "attestation by a stranger": (
        "TrustPolicy",
        "attestations",
        [ORIGIN | {"authorities": ["plant-b"]}],
        "an attestation names an authority that is not among `authorities`",
    ),
    "attestation of no type": (
        "TrustPolicy",
        "attestations",
        [ORIGIN | {"predicateType": "slsa"}],
        "predicateType must be a URI, for example https://slsa.dev/provenance/v1",
    ),
    "exception of nothing": ("TrustException", "images", [], "name at least one image glob"),
    "exception nowhere": ("TrustException", "namespaces", [], "say where it applies"),
    "exception without end": ("TrustException", "expires", DELETE, "spec.expires: Required value"),
    "exception that ends at no time": ("TrustException", "expires", "soon", "must be of type date-time"),
    "exception without reason": ("TrustException", "reason", DELETE, "spec.reason: Required value"),
    "another mode": ("TrustPolicy", "mode", "Warn", 'supported values: "Enforce", "Audit"'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_apply_refuses_with_a_sentence(api: Cluster, case: str) -> None:
    kind, path, value, sentence = REFUSED[case]
    document = make(kind, changed(MINIMAL[kind], path, value))

    with pytest.raises(CommandFailed) as refusal:
        apply(api, document, "--dry-run=server")

    assert sentence in str(refusal.value).replace('\\"', '"')


@pytest.mark.parametrize("name", ["a" * 53, "1st-line", "line.v2"])
def test_apply_refuses_a_name_that_no_service_can_have(api: Cluster, name: str) -> None:
    with pytest.raises(CommandFailed, match="the name becomes that of a Service: at most 52 of a-z"):
        apply(api, make("EdgeModel", MINIMAL["EdgeModel"], name), "--dry-run=server")


@pytest.mark.parametrize("name", ["a" * 52, "line-7", "x"])
def test_apply_takes_a_name_that_a_service_can_have(api: Cluster, name: str) -> None:
    apply(api, make("EdgeModel", MINIMAL["EdgeModel"], name), "--dry-run=server")


def test_a_refusal_never_shows_only_a_regular_expression(api: Cluster) -> None:
    spec = changed(MINIMAL["EdgeModel"], "model.source.http.sha256", "x")

    with pytest.raises(CommandFailed) as refusal:
        apply(api, make("EdgeModel", spec), "--dry-run=server")

    assert "[0-9a-f]" not in str(refusal.value)
