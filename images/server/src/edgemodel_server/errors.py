"""The two kinds of failure that a person reads: a refused request, and a model that cannot be served."""

from enum import StrEnum


class ApiError(Exception):
    """A request that is answered with ``{"error": message}``.

    ``status`` is the HTTP status; 4xx says that the client must change it, 503 that it may repeat it.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def as_value(self) -> "ApiError":
        """Return an equal error that was never raised, to be handed on.

        One that was raised holds the frames that it passed, and those above them. Where one of these knows
        the error by a name, they all stay, with the whole request, until the cycle collector runs.
        """
        return ApiError(self.status, self.message)


class Reason(StrEnum):
    """Why a model, or the whole server, is not ready; the words of ``GET /v2/health/ready``."""

    STARTING = "Starting"
    FILE_DIGEST_MISMATCH = "FileDigestMismatch"
    LOAD_FAILED = "LoadFailed"
    PROVIDER_MISMATCH = "ProviderMismatch"
    WARM_UP_FAILED = "WarmUpFailed"
    GOLDEN_MISMATCH = "GoldenMismatch"
    DRAINING = "Draining"


MAX_MESSAGE_CHARACTERS = 1000
"""Runtimes quote whole graphs in their errors; a probe's answer must stay readable."""


class StartError(Exception):
    """A start-up check that failed: the model must not be served, and ``reason`` says which check it was."""

    def __init__(self, reason: Reason, message: str) -> None:
        text = " ".join(message.split())
        if len(text) > MAX_MESSAGE_CHARACTERS:
            text = text[: MAX_MESSAGE_CHARACTERS - 1] + "…"
        super().__init__(text)
        self.reason = reason
        self.message = text
