"""Who asks: a service account, proved by a token that the API server made for this program alone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.adapters.signer_protocol import AUDIENCE

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
MAX_TOKEN_BYTES = 16 * 1024
KEEP_CALLER_S = 60.0
"""How long a token is believed before the next question: a deleted pod may sign for that much longer."""
KEEP_STRANGER_S = 5.0
MAX_KEPT = 256
ASKED_AT_ONCE = 4
"""Strangers with new tokens must not become a load on the API server."""
_POD = "authentication.kubernetes.io/pod-name"


class NotAuthenticated(Exception):  # noqa: N818 - reads as the fact it states
    """The request proves no identity; the message says what to send."""


@dataclass(frozen=True)
class Caller:
    """Whom the API server knows by a token."""

    name: str
    """`system:serviceaccount:NAMESPACE:NAME`."""
    pod: str = ""
    """The pod to which the token is bound."""
    uid: str = ""
    """The identity of the service account object."""


class Callers:
    """Asks the API server about tokens (TokenReview), and remembers its answers briefly, by hash."""

    def __init__(self, api: KubeApi, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._api = api
        self._clock = clock
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)
        self._kept: dict[bytes, tuple[float, Caller | None]] = {}

    async def identify(self, authorization: str) -> Caller:
        """Say who sends this Authorization header. Raises NotAuthenticated and KubeError."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_BYTES:
            raise NotAuthenticated(
                f"send a service account token for the audience {AUDIENCE} as `Authorization: Bearer …`"
            )
        hashed = hashlib.sha256(token.encode()).digest()
        if not self._is_kept(hashed):
            async with self._turns:
                if not self._is_kept(hashed):
                    self._keep(hashed, await self._review(token))
        caller = self._kept[hashed][1]
        if caller is None:
            raise NotAuthenticated(f"the token is not a valid one for the audience {AUDIENCE}")
        return caller

    async def _review(self, token: str) -> Caller | None:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        status: dict[str, Any] = (await self._api.create(REVIEWS, review)).get("status") or {}
        # An API server that knows no audiences names none, and may take a token that was made for itself.
        if status.get("authenticated") is not True or AUDIENCE not in (status.get("audiences") or ()):
            return None
        user = status.get("user") or {}
        pods = (user.get("extra") or {}).get(_POD) or [""]
        return Caller(str(user.get("username", "")), str(pods[0]), str(user.get("uid", "")))

    def _is_kept(self, hashed: bytes) -> bool:
        return hashed in self._kept and self._kept[hashed][0] > self._clock()

    def _keep(self, hashed: bytes, caller: Caller | None) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        keep = KEEP_STRANGER_S if caller is None else KEEP_CALLER_S
        self._kept[hashed] = (self._clock() + keep, caller)
