"""Who asks: what the API server says of a token, for our audience, remembered briefly."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.signer_protocol import AUDIENCE
from edgemodel_operator.signer.callers import (
    KEEP_CALLER_S,
    KEEP_STRANGER_S,
    MAX_KEPT,
    MAX_TOKEN_BYTES,
    Caller,
    Callers,
    NotAuthenticated,
)

OPERATOR = "system:serviceaccount:edgemodel-system:edgemodel-operator"


class Reviews:
    """An API server that reviews tokens."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {
            "authenticated": True,
            "audiences": [AUDIENCE],
            "user": {
                "username": OPERATOR,
                "uid": "u-1",
                "extra": {"authentication.kubernetes.io/pod-name": ["operator-0"]},
            },
        }
        self.asked: list[dict[str, Any]] = []
        self.down = False
        self.now = 100.0

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.down:
            raise KubeError(0, "the API server does not answer")
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        self.asked.append(body["spec"])
        return {"status": self.status}

    def callers(self) -> Callers:
        return Callers(self, lambda: self.now)  # type: ignore[arg-type]


async def test_a_token_is_reviewed_for_our_audience() -> None:
    reviews = Reviews()
    assert await reviews.callers().identify("Bearer t-1") == Caller(OPERATOR, "operator-0", "u-1")
    assert reviews.asked == [{"token": "t-1", "audiences": [AUDIENCE]}]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False},
        {"authenticated": "true", "audiences": [AUDIENCE]},
        {"authenticated": True},
        {"authenticated": True, "audiences": ["https://kubernetes.default.svc"]},
    ],
)
async def test_a_token_that_was_not_made_for_us_proves_nothing(status: dict[str, Any]) -> None:
    reviews = Reviews()
    reviews.status = {"user": {"username": OPERATOR}, **status}
    with pytest.raises(NotAuthenticated, match=AUDIENCE):
        await reviews.callers().identify("Bearer t-1")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "t-1", "Bearer " + "x" * (MAX_TOKEN_BYTES + 1)]
)
async def test_what_is_no_token_is_not_asked_about(header: str) -> None:
    reviews = Reviews()
    with pytest.raises(NotAuthenticated):
        await reviews.callers().identify(header)
    assert not reviews.asked


async def test_an_answer_is_remembered_briefly_and_a_refusal_more_briefly() -> None:
    reviews = Reviews()
    callers = reviews.callers()
    for _ in range(5):
        await callers.identify("Bearer t-1")
    assert len(reviews.asked) == 1
    reviews.now += KEEP_CALLER_S
    reviews.status = {"authenticated": False}
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            await callers.identify("Bearer t-1")
    assert len(reviews.asked) == 2
    reviews.now += KEEP_STRANGER_S
    reviews.status = Reviews().status
    assert await callers.identify("Bearer t-1")


async def test_an_api_server_that_is_away_is_never_remembered() -> None:
    reviews = Reviews()
    callers = reviews.callers()
    reviews.down = True
    with pytest.raises(KubeError):
        await callers.identify("Bearer t-1")
    reviews.down = False
    assert await callers.identify("Bearer t-1")


async def test_tokens_are_not_kept_and_strangers_fill_no_memory() -> None:
    reviews = Reviews()
    callers = reviews.callers()
    for number in range(3 * MAX_KEPT):
        await callers.identify(f"Bearer t-{number}")
    assert len(callers._kept) <= MAX_KEPT
    assert not [hashed for hashed in callers._kept if b"t-" in hashed]
