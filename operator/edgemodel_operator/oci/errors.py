"""What can go wrong between us and a registry.

Every error carries a sentence for a person and says by `retryable` whether the same call may succeed later
without anybody changing anything. Messages never hold credentials, tokens or whole response bodies.
"""

# ruff: noqa: N818 - the names state a fact ("not found"); an Error suffix would add nothing

from __future__ import annotations


class RegistryError(Exception):
    """Base of all registry errors; `retryable` is true when waiting may help."""

    retryable: bool = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


class NotFound(RegistryError):
    """The manifest, blob, tag or repository does not exist (or is hidden from us)."""


class Unauthorized(RegistryError):
    """The registry refused our credentials, or wants some and we have none."""


class DigestMismatch(RegistryError):
    """Received bytes do not hash to the digest that names them; they were thrown away."""


class TooLarge(RegistryError):
    """Content is larger than the caller's limit; nothing beyond the limit was read."""


class RegistryUnavailable(RegistryError):
    """No usable answer after all retries: connection failure, time-out, 408, 429 or 5xx.

    `retry_after` is the time (seconds) that the registry asked us to wait, if it did.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeletionForbidden(RegistryError):
    """The registry deletes nothing: its operator has not enabled it (405), or it never does (501)."""


class ProtocolError(RegistryError):
    """The registry answered something the specification does not allow, or that we refuse to follow."""
