"""Errors of the signing package. No message of any of them ever contains a key, a password or their parts."""

# ruff: noqa: N818 - names that state a fact read better without an Error suffix

from enum import StrEnum


class SigningError(Exception):
    """Base of every error that this package raises on its own account."""


class FormatError(SigningError):
    """Bytes that claim to be a signature object and do not follow its format."""


class KeyProblem(StrEnum):
    """Why a key could not be loaded: the machine-readable half of `KeyLoadError`."""

    MISSING_FIELD = "MissingField"
    WRONG_PASSWORD = "WrongPassword"  # noqa: S105 - a reason code
    CORRUPT = "Corrupt"
    UNSUPPORTED = "Unsupported"
    TOO_COSTLY = "TooCostly"
    MISMATCH = "Mismatch"


class KeyLoadError(SigningError):
    """A key, key file or signing Secret that cannot be used; the message says what to do about it."""

    def __init__(self, problem: KeyProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


class NotSignable(SigningError):
    """What a reference names cannot be signed: no digest, or a manifest that is not an image or index."""


class SignatureLost(SigningError):
    """A signature was written again and again and other writers kept replacing it; trying later can help."""


class BadIdentity(SigningError):
    """An identity that cannot be used as described; the message says what to write instead."""


class BadTrustedRoot(SigningError):
    """A trusted root that cannot be used; the message says what is wrong with it."""


class NotInTrustedRoot(SigningError):
    """A signature names a log, or times, that no entry of the trusted root speaks for."""


class NotThisIdentity(SigningError):
    """A bundle that an identity has not made, or that does not prove who made it."""


class SignerFailed(SigningError):
    """A signer outside this process gave no signature, or a wrong one; the message says what to look at."""


class BadExpression(SigningError):
    """A CEL expression that cannot be used; the message is half a sentence about it."""


class CannotCheck(SigningError):
    """Whether an attested document passes could not be found out; trying later can help. Never a verdict."""


class BadServices(SigningError):
    """Services for keyless signing that are not named, or cannot be used as described."""


class NotSignedKeyless(SigningError):
    """A keyless service refused, failed, or did something that proves nothing. Nothing was published."""
