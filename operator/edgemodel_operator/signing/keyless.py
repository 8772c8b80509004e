"""Identities without a key of their own: whom a login service knew when a short-lived certificate was issued.

A signature by one is a Sigstore bundle v0.3 with a certificate. Not understood: legacy signatures with
certificates, bundles before v0.3, bundles with several log entries. How one is verified stands in
`keyless_bundle`; it needs libraries that take half a second to import, so only who has an identity pays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from edgemodel_operator.signing.errors import BadIdentity, NotThisIdentity, SigningError
from edgemodel_operator.signing.expressions import load_cel

if TYPE_CHECKING:
    from edgemodel_operator.signing.keyless_root import PinnedRoot

MAX_PATTERN_CHARACTERS = 512
MAX_NAME_CHARACTERS = 2048


@dataclass(frozen=True)
class WantedName:
    """A name that a certificate must carry: exactly, or as a pattern that the whole name must match."""

    text: str
    is_pattern: bool = False

    def matches(self, name: str) -> bool:
        """Tell whether `name` is meant, in time linear in it, whatever the pattern."""
        if not self.is_pattern:
            return name == self.text
        return len(name) <= MAX_NAME_CHARACTERS and _matches(_whole(self.text), name)

    @override
    def __str__(self) -> str:
        return f"~{self.text}" if self.is_pattern else self.text


@dataclass(frozen=True)
class KeylessIdentity:
    """Somebody whom an issuer knows under a subject, by certificates under a pinned trusted root."""

    issuer: WantedName
    subject: WantedName
    root: PinnedRoot

    @property
    def name(self) -> str:
        """Name whom and by which trusted root: `SUBJECT@ISSUER/root:HASH`; patterns begin with `~`."""
        return f"{self.subject}@{self.issuer}/root:{self.root.fingerprint.removeprefix('sha256:')[:16]}"

    def verifies(self, bundle: bytes) -> bool:
        """Tell whether this identity made the Sigstore bundle (its JSON). Never raises for bad bundles."""
        return not self.refusal(bundle)

    def refusal(self, bundle: bytes) -> str:
        """Say in half a sentence why the bundle is not this identity's; empty when it is."""
        from edgemodel_operator.signing.keyless_bundle import verify_bundle  # noqa: PLC0415 - slow to import

        try:
            verify_bundle(bundle, self.root, self._check)
        except SigningError as error:
            return str(error)
        return ""

    def _check(self, issuer: str, subject: str) -> None:
        if not self.issuer.matches(issuer):
            raise NotThisIdentity(f"its certificate is by {issuer[:256]!r}, not by {str(self.issuer)!r}")
        if not self.subject.matches(subject):
            raise NotThisIdentity(f"its certificate names {subject[:256]!r}, not {str(self.subject)!r}")


def load_identity(
    trusted_root: bytes,
    *,
    issuer: str | None = None,
    issuer_reg_exp: str | None = None,
    subject: str | None = None,
    subject_reg_exp: str | None = None,
) -> KeylessIdentity:
    """Make an identity from a pinned trusted root and, of issuer and subject each, a name or a pattern.

    Patterns are in RE2's syntax and must match the whole name. Raises `BadIdentity` and `BadTrustedRoot`. The
    first call takes half a second and 20 MB, for the libraries.
    """
    from edgemodel_operator.signing.keyless_root import load_trusted_root  # noqa: PLC0415 - slow to import

    return KeylessIdentity(
        issuer=_wanted("issuer", issuer, issuer_reg_exp),
        subject=_wanted("subject", subject, subject_reg_exp),
        root=load_trusted_root(trusted_root),
    )


def check_names(
    *,
    issuer: str | None = None,
    issuer_reg_exp: str | None = None,
    subject: str | None = None,
    subject_reg_exp: str | None = None,
) -> None:
    """Refuse names and patterns that no identity can be made from; raises `BadIdentity`."""
    _wanted("issuer", issuer, issuer_reg_exp)
    _wanted("subject", subject, subject_reg_exp)


def _wanted(what: str, exact: str | None, pattern: str | None) -> WantedName:
    if (exact is None) == (pattern is None):
        raise BadIdentity(f"name the {what} once: exactly, or as a pattern")
    if exact is not None:
        if not exact:
            raise BadIdentity(f"the {what} is empty: write the one that certificates name")
        return WantedName(exact)
    if not pattern or len(pattern) > MAX_PATTERN_CHARACTERS:
        raise BadIdentity(f"the pattern for the {what} must have 1 to {MAX_PATTERN_CHARACTERS} characters")
    try:
        # By itself first: one like `a)|(b` is none, but would become one between our parentheses.
        _matches(pattern, "")
        _matches(_whole(pattern), "")
    except RuntimeError:
        raise BadIdentity(
            f"the pattern for the {what}, {pattern!r}, is no regular expression in RE2's syntax "
            "(which has no look-around and no back-references)"
        ) from None
    return WantedName(pattern, is_pattern=True)


def _whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\z"


def _matches(pattern: str, text: str) -> bool:
    """Search with Rust's regular expressions, by way of CEL: linear time, and patterns of bounded size."""
    return load_cel().evaluate("text.matches(pattern)", {"text": text, "pattern": pattern}) is True
