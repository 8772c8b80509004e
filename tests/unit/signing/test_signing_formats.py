import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel_operator.oci.descriptor import Descriptor, canonical_json, sha256_digest
from edgemodel_operator.signing import bundle, simple_signing
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.strict_json import parse_strict_json

REPOSITORY = "registry.example.com/models/a"
DIGEST = "sha256:" + "ab" * 32
OTHER_DIGEST = "sha256:" + "cd" * 32


def layer(payload: bytes, signature: bytes = b"signature") -> simple_signing.SignatureLayer:
    described = Descriptor.of(simple_signing.PAYLOAD_MEDIA_TYPE, payload)
    return simple_signing.SignatureLayer(described, signature)


def payload_with(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(simple_signing.make_payload(REPOSITORY, DIGEST))
    change(document)
    return json.dumps(document).encode()


def statement_with(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(bundle.make_statement(REPOSITORY, DIGEST))
    change(document)
    return json.dumps(document).encode()


def bundle_with(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(bundle.make_bundle(b"statement", b"signature", "hint"))
    change(document)
    return json.dumps(document).encode()


# The legacy format.


def test_the_payload_is_byte_for_byte_what_cosign_signs() -> None:
    assert simple_signing.make_payload("127.0.0.1:5055/demo", DIGEST) == (
        b'{"critical":{"identity":{"docker-reference":"127.0.0.1:5055/demo"},"image":{"docker-manifest-digest":"'
        + DIGEST.encode()
        + b'"},"type":"cosign container image signature"},"optional":null}'
    )


def test_a_payload_round_trips_and_may_be_pretty_printed_with_user_claims() -> None:
    pretty = json.dumps(
        json.loads(simple_signing.make_payload(REPOSITORY, DIGEST)) | {"optional": {"a": "b"}}, indent=2
    )
    claims = simple_signing.ImageClaims(REPOSITORY, DIGEST)
    assert simple_signing.parse_payload(simple_signing.make_payload(REPOSITORY, DIGEST)) == claims
    assert simple_signing.parse_payload(pretty.encode()) == claims


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["critical"].update(type="atomic container signature"),  # case 3
        lambda d: d["critical"].pop("type"),
        lambda d: d.pop("critical"),
        lambda d: d["critical"].update(image=None),
        lambda d: d["critical"]["image"].update({"docker-manifest-digest": DIGEST.upper()}),  # case 8
        lambda d: d["critical"]["image"].update({"docker-manifest-digest": "sha512:" + "ab" * 64}),
        lambda d: d["critical"]["image"].update({"Docker-manifest-digest": OTHER_DIGEST}),  # case 9
        lambda d: d.update(Critical={}),
        lambda d: d["critical"].update(TYPE="x"),
        lambda d: d["critical"]["identity"].pop("docker-reference"),
        lambda d: d["critical"]["identity"].update({"docker-reference": 7}),
    ],
)
def test_cases_03_08_09_payloads_that_could_mean_something_else_are_refused(
    change: Callable[[dict[str, Any]], object],
) -> None:
    with pytest.raises(FormatError):
        simple_signing.parse_payload(payload_with(change))


def test_case_09_a_payload_with_the_other_spelling_only_is_refused() -> None:
    good = simple_signing.make_payload(REPOSITORY, DIGEST)
    with pytest.raises(FormatError):
        simple_signing.parse_payload(good.replace(b"docker-manifest", b"Docker-manifest"))


@pytest.mark.parametrize(
    "document",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":1e999,"b":Infinity}',
        b"[]",
        b"7",
        b"",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b"{} {}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"1" * 10_000 + b"}",
    ],
)
def test_case_09_json_that_parsers_read_differently_is_refused(document: bytes) -> None:
    with pytest.raises(FormatError):
        parse_strict_json(document, max_bytes=1_000_000, what="it")


def test_case_21_a_payload_above_the_limit_is_refused() -> None:
    with pytest.raises(FormatError, match="65536 allowed"):
        simple_signing.parse_payload(payload_with(lambda d: d.update(optional={"a": "x" * 70_000})))


def test_adding_a_signature_keeps_the_layers_of_others_as_they_are() -> None:
    theirs = {
        "mediaType": simple_signing.PAYLOAD_MEDIA_TYPE,
        "size": 5,
        "digest": OTHER_DIGEST,
        "annotations": {simple_signing.SIGNATURE_ANNOTATION: "c2ln", "dev.sigstore.cosign/bundle": "{}"},
    }
    existing = {"schemaVersion": 2, "layers": [theirs, {"odd": "entry"}], "annotations": {"kept": "yes"}}
    parsed = simple_signing.parse_signature_manifest(json.dumps(existing).encode())
    ours = layer(b"payload")
    made = json.loads(simple_signing.make_signature_manifest(parsed, [ours]).body)
    assert made["layers"][:2] == existing["layers"]
    assert made["annotations"] == {"kept": "yes"}
    again = simple_signing.parse_signature_manifest(canonical_json(made))
    assert again.layers[-1] == ours
    assert again.junk == 1


def test_a_signature_manifest_is_the_same_each_time_and_describes_its_config() -> None:
    first = simple_signing.make_signature_manifest(None, [layer(b"payload")])
    assert first == simple_signing.make_signature_manifest(None, [layer(b"payload")])
    config = json.loads(first.config)
    assert config["rootfs"]["diff_ids"] == [sha256_digest(b"payload")]
    assert json.loads(first.body)["config"]["digest"] == sha256_digest(first.config)


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": "application/octet-stream"},
        {"size": simple_signing.MAX_PAYLOAD_BYTES + 1},
        {"size": -1},
        {"digest": "sha512:" + "ab" * 64},
        {"annotations": {}},
        {"annotations": {simple_signing.SIGNATURE_ANNOTATION: "not base64!"}},
        {"annotations": {simple_signing.SIGNATURE_ANNOTATION: "ünicode"}},
        {"annotations": {simple_signing.SIGNATURE_ANNOTATION: "AA==" * 9000}},
        {"annotations": None},
    ],
)
def test_layers_that_are_no_signatures_are_counted_only(change: dict[str, object]) -> None:
    good = {
        "mediaType": simple_signing.PAYLOAD_MEDIA_TYPE,
        "size": 5,
        "digest": DIGEST,
        "annotations": {simple_signing.SIGNATURE_ANNOTATION: "c2ln"},
    }
    parsed = simple_signing.parse_signature_manifest(json.dumps({"layers": [good | change, good]}).encode())
    assert len(parsed.layers) == 1
    assert parsed.junk == 1


def test_the_signature_tag_is_that_of_cosign() -> None:
    assert simple_signing.signature_tag(DIGEST) == f"sha256-{'ab' * 32}.sig"


# The bundle format.


def test_the_pre_authentication_encoding_is_that_of_the_dsse_specification() -> None:
    encoded = bundle.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_bundle_round_trips() -> None:
    statement = bundle.make_statement(REPOSITORY, DIGEST)
    parsed = bundle.parse_bundle(bundle.make_bundle(statement, b"signature", "hint"))
    assert parsed == bundle.Bundle(bundle.STATEMENT_MEDIA_TYPE, statement, b"signature")
    read = bundle.parse_statement(parsed.payload_type, parsed.payload)
    assert read.predicate_type == "https://sigstore.dev/cosign/sign/v1"
    assert read.subjects[0].digests == {"sha256": "ab" * 32}
    assert read.subjects[0].annotations == {"dev.edgemodel.repository": REPOSITORY}


def test_the_statement_of_cosign_3_is_read() -> None:
    theirs = (
        b'{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"'
        + b"ab" * 32
        + b'"},"annotations":{}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}'
    )
    assert bundle.parse_statement(bundle.STATEMENT_MEDIA_TYPE, theirs).subjects[0].annotations == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(subject=None),
        lambda d: d.update(subject=[]),
        lambda d: d.update(subject=[None]),
        lambda d: d.update(subject=[{}] * 2000),
        lambda d: d.pop("subject"),
        lambda d: d.update(Subject=[]),
        lambda d: d.update(_type="https://in-toto.io/Statement/v2"),
        lambda d: d.pop("predicateType"),
        lambda d: d.update(predicatetype="x"),
        lambda d: d["subject"][0].update(digest=None),
        lambda d: d["subject"][0]["digest"].update(SHA256="ab" * 32),
        lambda d: d["subject"][0]["digest"].update(sha256="AB" * 32),
        lambda d: d["subject"][0]["digest"].update(sha256="ab" * 31),
        lambda d: d["subject"][0]["digest"].update(sha256=7),
        lambda d: d["subject"][0]["digest"].update(sha512=7),
        lambda d: d["subject"][0].update(annotations=[1]),
        lambda d: d["subject"][0]["annotations"].update({"dev.edgemodel.Repository": "x"}),
    ],
)
def test_cases_07_08_09_statements_that_could_mean_something_else_are_refused(
    change: Callable[[dict[str, Any]], object],
) -> None:
    with pytest.raises(FormatError):
        bundle.parse_statement(bundle.STATEMENT_MEDIA_TYPE, statement_with(change))


def test_case_07_a_payload_that_is_no_statement_is_refused() -> None:
    for payload_type, payload in (
        (bundle.STATEMENT_MEDIA_TYPE, b"not json"),
        (bundle.STATEMENT_MEDIA_TYPE, b'{"_type":"x","_type":"y"}'),
        ("application/json", bundle.make_statement(REPOSITORY, DIGEST)),
    ):
        with pytest.raises(FormatError):
            bundle.parse_statement(payload_type, payload)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle.v0.2+json"),
        lambda d: d.update(MEDIATYPE="x"),
        lambda d: d.update(extra=1),
        lambda d: d["verificationMaterial"].update(certificate={}),
        lambda d: d.update(messageSignature={}),
        lambda d: d["dsseEnvelope"].update(signatures=[]),
        lambda d: d["dsseEnvelope"].update(signatures=[{"sig": "AA=="}, {"sig": "AA=="}]),
        lambda d: d["dsseEnvelope"].update(signatures=[None]),
        lambda d: d["dsseEnvelope"].update(signatures=[{"sig": ""}]),
        lambda d: d["dsseEnvelope"].update(signatures=[{"sig": "!"}]),
        lambda d: d["dsseEnvelope"].update(payload="ü"),
        lambda d: d["dsseEnvelope"].update(payloadType="\ud800"),
        lambda d: d["dsseEnvelope"].update(payloadtype="x"),
        lambda d: d.update(dsseEnvelope=None),
    ],
)
def test_bundles_that_could_mean_something_else_are_refused(
    change: Callable[[dict[str, Any]], object],
) -> None:
    with pytest.raises(FormatError):
        bundle.parse_bundle(bundle_with(change))


def test_a_keyless_bundle_says_with_which_certificate_it_was_made() -> None:
    keyless = bundle_with(lambda d: d.update(verificationMaterial={"certificate": {"rawBytes": "AAE="}}))
    keyed = bundle_with(lambda _: None)
    parsed, other = bundle.parse_bundle(keyless), bundle.parse_bundle(keyed)
    assert parsed is not None
    assert other is not None
    assert (parsed.certificate, other.certificate) == (b"\0\1", b"")
    assert parsed.message == other.message


@pytest.mark.parametrize(
    "material",
    [
        {},
        {"certificate": {"rawBytes": "!"}},
        {"certificate": {}},
        {"certificate": {"rawBytes": "AAE="}, "publicKey": {}},
        {"x509CertificateChain": {"certificates": [{"rawBytes": "AAE="}]}},
        {"certificate": {"rawBytes": "AAE="}, "tlog_entries": []},
    ],
)
def test_a_bundle_whose_signer_is_not_clear_is_refused(material: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        bundle.parse_bundle(bundle_with(lambda d: d.update(verificationMaterial=material)))


def test_a_bundle_over_a_blob_is_foreign_not_broken() -> None:
    blob = bundle_with(lambda d: d.update(messageSignature=d.pop("dsseEnvelope")))
    assert bundle.parse_bundle(blob) is None


def test_a_bundle_manifest_names_its_subject_and_leads_to_the_bundle() -> None:
    blob = Descriptor.of(bundle.BUNDLE_MEDIA_TYPE, b"bundle")
    subject = Descriptor("application/vnd.oci.image.index.v1+json", DIGEST, 7, annotations={"left": "out"})
    body = bundle.make_bundle_manifest(blob, subject)
    document = json.loads(body)
    assert document["subject"] == {"mediaType": subject.media_type, "digest": DIGEST, "size": 7}
    assert document["artifactType"] == bundle.BUNDLE_MEDIA_TYPE
    assert body == bundle.make_bundle_manifest(blob, subject)
    assert bundle.parse_bundle_manifest(body) == blob


def test_other_referrers_are_not_bundles_and_broken_ones_are_refused() -> None:
    sbom = Descriptor.of("application/spdx+json", b"sbom").to_json()
    blob = Descriptor.of(bundle.BUNDLE_MEDIA_TYPE, b"bundle").to_json()
    assert bundle.parse_bundle_manifest(canonical_json({"layers": [sbom]})) is None
    assert bundle.parse_bundle_manifest(b'{"manifests":[]}') is None
    for layers in ([blob, blob], [blob | {"size": 17 * 1024 * 1024}], [blob | {"size": "7"}], ["x"]):
        with pytest.raises(FormatError):
            bundle.parse_bundle_manifest(canonical_json({"layers": layers}))


# Whatever comes in: an answer or a FormatError.


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_arbitrary_bytes_raise_nothing_but_format_errors(data: bytes) -> None:
    for parse in (
        simple_signing.parse_payload,
        simple_signing.parse_signature_manifest,
        bundle.parse_bundle,
        bundle.parse_bundle_manifest,
        lambda data: bundle.parse_statement(bundle.STATEMENT_MEDIA_TYPE, data),
    ):
        with contextlib.suppress(FormatError):
            parse(data)


_MEMBERS = """
critical type image identity optional layers digest size mediaType annotations subject predicateType _type
dsseEnvelope payload payloadType signatures sig keyid verificationMaterial publicKey Layers Digest sha256
"""

_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=10)
    | st.sampled_from(
        [DIGEST, "ab" * 32, bundle.BUNDLE_MEDIA_TYPE, "AA==", simple_signing.PAYLOAD_MEDIA_TYPE]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_MEMBERS.split()),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def _paths(document: object, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        pairs = list(document.items())
    elif isinstance(document, list):
        pairs = list(enumerate(document))
    return [path for key, value in pairs for path in ((*prefix, key), *_paths(value, (*prefix, key)))]


_GOOD: list[tuple[bytes, Callable[[bytes], object]]] = [
    (simple_signing.make_payload(REPOSITORY, DIGEST), simple_signing.parse_payload),
    (
        simple_signing.make_signature_manifest(None, [layer(b"payload")]).body,
        simple_signing.parse_signature_manifest,
    ),
    (bundle.make_bundle(b"statement", b"signature", "hint"), bundle.parse_bundle),
    (
        bundle.make_statement(REPOSITORY, DIGEST),
        lambda data: bundle.parse_statement(bundle.STATEMENT_MEDIA_TYPE, data),
    ),
    (
        bundle.make_bundle_manifest(
            Descriptor.of(bundle.BUNDLE_MEDIA_TYPE, b"b"), Descriptor("m", DIGEST, 1)
        ),
        bundle.parse_bundle_manifest,
    ),
]


@settings(max_examples=600, deadline=None)
@given(good=st.sampled_from(_GOOD), value=_ANY, data=st.data())
def test_any_json_in_any_place_raises_nothing_but_format_errors(
    good: tuple[bytes, Callable[[bytes], object]], value: object, data: st.DataObject
) -> None:
    document = json.loads(good[0])
    *parents, last = data.draw(st.sampled_from(_paths(document)))
    inner = document
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    with contextlib.suppress(FormatError):
        good[1](json.dumps(document).encode())


def test_base64_with_foreign_characters_is_refused() -> None:
    smuggled = base64.b64encode(b"statement").decode()
    with pytest.raises(FormatError):
        bundle.parse_bundle(bundle_with(lambda d: d["dsseEnvelope"].update(payload=f"{smuggled}\n")))
