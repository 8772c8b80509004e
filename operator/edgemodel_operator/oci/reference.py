"""Image references: `host[:port]/repository[:tag][@sha256:digest]`.

The grammar is that of the CNCF distribution reference library with one deliberate difference: the registry
host is mandatory. An implicit public hub is a trap on sites without Internet, and lets the same text name
different images.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from typing_extensions import override

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?P<name>(?:{_LABEL}(?:\.{_LABEL})*)|\[[0-9a-f:]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_LENGTH = 512
_MAX_NAME_LENGTH = 255


class InvalidReference(ValueError):  # noqa: N818 - reads as the fact it states, like the other errors here
    """The text is no complete image reference; the message is a sentence that says what is wrong with it."""


@dataclass(frozen=True)
class Reference:
    """One image name in one registry; `tag` and `digest` may both, one or none be set."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """`host:port/repository`, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What a manifest request asks for: the digest if there is one, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    def with_digest(self, digest: str) -> Reference:
        """Return the immutable reference `name@digest`; a tag is dropped, since it says nothing any more."""
        if not is_digest(digest):
            raise InvalidReference(
                f"{digest!r} is not a digest: expected sha256: and 64 lower-case hex digits."
            )
        return dataclasses.replace(self, tag=None, digest=digest)

    def with_tag(self, tag: str) -> Reference:
        """Return `name:tag` without a digest."""
        if not _TAG.fullmatch(tag):
            raise InvalidReference(
                f"{tag!r} is not a tag: expected up to 128 letters, digits, '_', '.', '-'."
            )
        return dataclasses.replace(self, tag=tag, digest=None)

    @override
    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def is_digest(text: str) -> bool:
    """Tell whether the text is a well-formed `sha256:` digest, the only algorithm we accept."""
    return _DIGEST.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Parse an image reference.

    Raises InvalidReference with a sentence when the text is malformed or names no registry host. The host is
    lowered (host names are case-insensitive), so that two spellings of one image compare equal.
    """
    if len(text) > _MAX_LENGTH:
        raise InvalidReference(
            f"An image reference of {len(text)} characters is too long; the limit is {_MAX_LENGTH}."
        )
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise InvalidReference(f"{text!r}: after '@' there must be sha256: and 64 lower-case hex digits.")
    registry, slash, path = rest.partition("/")
    _check_host(text, registry, has_path=bool(slash))
    repository, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReference(f"{text!r}: {tag!r} is not a tag (up to 128 letters, digits, '_', '.', '-').")
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReference(
            f"{text!r}: {repository!r} is not a repository name (lower-case letters and digits, "
            "separated by '/', '.', '_' or '-')."
        )
    reference = Reference(registry.lower(), repository, tag or None, digest or None)
    if len(reference.name) > _MAX_NAME_LENGTH:
        raise InvalidReference(
            f"{text!r}: host and repository together exceed {_MAX_NAME_LENGTH} characters."
        )
    return reference


def _check_host(text: str, registry: str, *, has_path: bool) -> None:
    host = _HOST.fullmatch(registry.lower()) if registry.isascii() else None
    looks_like_host = registry == "localhost" or any(mark in registry for mark in ".:[")
    if not has_path or not looks_like_host:
        raise InvalidReference(
            f"{text!r} names no registry: write the host first, as in registry.example.com/team/model:1."
        )
    if host is None or (host["port"] is not None and not 0 < int(host["port"]) < 65536):
        raise InvalidReference(
            f"{text!r}: {registry!r} is not a registry host (name or address, and optional port)."
        )
