"""What is answered instead of a signature: a status, a reason for programs, a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.signer_protocol import MAX_MESSAGE_BYTES
from edgemodel_operator.signer.callers import NotAuthenticated
from edgemodel_operator.signer.keyring import KeyTrouble, UnknownKey
from edgemodel_operator.signer.messages import Refused
from edgemodel_operator.signing.errors import SigningError

RETRY_SECONDS = 1


class NotAllowed(Exception):  # noqa: N818 - reads as the fact it states
    """Somebody is known, and may not have anything signed."""


class Busy(Exception):  # noqa: N818 - reads as the fact it states
    """Too many requests wait already, or this one has waited for too long."""


@dataclass(frozen=True)
class Refusal:
    """An answer without a signature."""

    status: int
    reason: str
    message: str

    @property
    def is_ours(self) -> bool:
        """Whether the same request may succeed later: it is not the request that is wrong."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR

    def response(self) -> web.Response:
        """Give it as HTTP."""
        headers = {"Retry-After": str(RETRY_SECONDS)} if self.is_ours else None
        body = {"reason": self.reason, "message": self.message}
        return web.json_response(body, status=self.status, headers=headers)


_STATUS: dict[type[Exception], tuple[HTTPStatus, str]] = {
    NotAuthenticated: (HTTPStatus.UNAUTHORIZED, "NotAuthenticated"),
    NotAllowed: (HTTPStatus.FORBIDDEN, "NotAllowed"),
    UnknownKey: (HTTPStatus.NOT_FOUND, "UnknownKey"),
    Busy: (HTTPStatus.SERVICE_UNAVAILABLE, "Busy"),
    KubeError: (HTTPStatus.SERVICE_UNAVAILABLE, "KubernetesUnavailable"),
}


def refusal_of(error: Exception) -> Refusal | None:
    """Give the answer for what went wrong; None for what nobody foresaw."""
    if isinstance(error, Refused):
        return Refusal(HTTPStatus.BAD_REQUEST, error.reason, str(error))
    if isinstance(error, KeyTrouble):
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, error.trouble.reason, str(error))
    if isinstance(error, SigningError):
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "SigningFailed", str(error))
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        sentence = f"nothing larger than {MAX_MESSAGE_BYTES} bytes is signed"
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "TooLarge", sentence)
    if isinstance(error, TimeoutError):
        return Refusal(HTTPStatus.REQUEST_TIMEOUT, "TooSlow", "the message did not arrive in time")
    known = _STATUS.get(type(error))
    return Refusal(*known, str(error)) if known else None


INTERNAL = Refusal(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "InternalError",
    "the signer met an error of its own; its log says which",
)
