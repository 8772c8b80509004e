"""Image references: what is accepted, what is refused, and that the two never meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.oci.reference import InvalidReference, Reference, is_digest, parse_reference

DIGEST = "sha256:" + "0123456789abcdef" * 4

hosts = st.one_of(
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z]{1,8}){1,2}(:[1-9][0-9]{0,3})?", fullmatch=True),
    st.sampled_from(["[::1]:5000", "127.0.0.1:5000", "registry.plant-a.local:5000"]),
)
components = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
repositories = st.lists(components, min_size=1, max_size=3).map("/".join)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
references = st.builds(Reference, hosts, repositories, st.none() | tags, st.none() | st.just(DIGEST))


@given(references)
def test_a_reference_survives_writing_and_reading(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except InvalidReference:
        return
    assert str(parsed) == text.partition("/")[0].lower() + text[len(parsed.registry) :]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("busybox", "names no registry"),
        ("library/busybox:1", "names no registry"),
        ("", "names no registry"),
        ("registry.example.com", "names no registry"),
        ("registry.example.com/", "not a repository"),
        ("registry.example.com/Model", "not a repository"),
        ("registry.example.com/a//b", "not a repository"),
        ("registry.example.com/../b", "not a repository"),
        ("registry.example.com/a\n", "not a repository"),
        ("registry.example.com/a:", "not a tag"),
        ("registry.example.com/a:-1", "not a tag"),
        ("registry.example.com/a:" + "x" * 129, "not a tag"),
        ("registry.example.com/a:1@", "after '@'"),
        ("registry.example.com/a@sha256:abc", "after '@'"),
        ("registry.example.com/a@" + DIGEST.upper(), "after '@'"),
        ("registry.example.com/a@sha512:" + "0" * 128, "after '@'"),
        ("registry.example.com:0/a", "not a registry host"),
        ("registry.example.com:99999/a", "not a registry host"),
        ("user@registry.example.com/a", "after '@'"),
        ("http://registry.example.com/a", "not a registry host"),
        ("-bad.example.com/a", "not a registry host"),
        ("bücher.example.com/a", "not a registry host"),
        ("registry.example.com/" + "a" * 250, "exceed"),
        ("registry.example.com/" + "a" * 600, "too long"),
    ],
)
def test_bad_references_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidReference, match=complaint):
        parse_reference(text)


def test_the_host_is_compared_without_case() -> None:
    assert parse_reference("Registry.Example.com/a:V1") == Reference("registry.example.com", "a", "V1")


def test_a_digest_replaces_the_tag_and_back() -> None:
    reference = parse_reference("registry.example.com:5000/a/b:1")
    assert str(reference.with_digest(DIGEST)) == f"registry.example.com:5000/a/b@{DIGEST}"
    assert str(reference.with_digest(DIGEST).with_tag("2")) == "registry.example.com:5000/a/b:2"
    with pytest.raises(InvalidReference):
        reference.with_digest("sha256:1")
    with pytest.raises(InvalidReference):
        reference.with_tag("a b")


@pytest.mark.parametrize(
    ("text", "target"), [("r.io/a", "latest"), ("r.io/a:1", "1"), (f"r.io/a:1@{DIGEST}", DIGEST)]
)
def test_the_digest_is_asked_for_before_the_tag(text: str, target: str) -> None:
    assert parse_reference(text).target == target


def test_only_whole_lower_case_sha256_is_a_digest() -> None:
    assert is_digest(DIGEST)
    assert not any(map(is_digest, (DIGEST + "0", DIGEST + "\n", " " + DIGEST, DIGEST[:-1], DIGEST.upper())))
