"""Model pods, asked through their own endpoint: ready, on which provider, and with right answers?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from edgemodel_operator.core.golden import InvalidGolden, difference, parse_sample
from edgemodel_operator.core.world import Answer, Pod

TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=3)
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_REMEMBERED = 4096
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that say nothing about the model."""


@dataclass(frozen=True)
class Question:
    """What one pod is asked."""

    pod: Pod
    port: int
    model: str
    provider: str
    """The provider that must be in use; empty: any."""
    golden: str
    """The golden sample; empty: none."""
    tolerance: float


class ModelPods:
    """Asks pods; an answer to the golden sample that was right is not asked for again from the same pod."""

    def __init__(self, session: aiohttp.ClientSession, *, concurrency: int = 16) -> None:
        """Use the session, which stays the caller's to close."""
        self._session = session
        self._gate = asyncio.Semaphore(concurrency)
        self._proven: dict[str, None] = {}

    async def ask(self, question: Question) -> Answer:
        """Ask one pod; never raises: silence is an answer, too."""
        async with self._gate:
            try:
                return await self._ask(question)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                what = str(error) or type(error).__name__
                return Answer(reachable=False, message=f"{question.pod.name} cannot be asked: {what}")

    async def _ask(self, question: Question) -> Answer:
        base = f"http://{_host(question.pod.ip)}:{question.port}/v2"
        status, health = await self._json("GET", f"{base}/health/ready")
        provider = str(health.get("provider") or "")
        if status != 200:
            reasons = health.get("reasons") or [{}]
            reason, message = str(reasons[0].get("reason", "NotReady")), str(reasons[0].get("message", ""))
            return Answer(reachable=True, provider=provider, reason=reason, message=message)
        if question.provider and provider != question.provider:
            message = (
                f"{question.pod.name} runs on {provider or 'an unknown provider'}, not {question.provider}"
            )
            return Answer(reachable=True, provider=provider, reason="ProviderMismatch", message=message)
        problem = await self._golden_problem(base, question)
        if problem:
            return Answer(reachable=True, provider=provider, reason="GoldenMismatch", message=problem)
        return Answer(reachable=True, ready=True, provider=provider)

    async def _golden_problem(self, base: str, question: Question) -> str:
        proof = f"{question.pod.uid}/{hash((question.golden, question.tolerance))}"
        if not question.golden or proof in self._proven:
            return ""
        try:
            sample = parse_sample(question.golden)
        except InvalidGolden as error:
            return str(error)
        url = f"{base}/models/{question.model}/infer"
        status, answer = await self._json("POST", url, body=sample.request())
        if status in BUSY:
            # Busy is not wrong: a full queue must not roll a fleet back.
            raise ValueError(f"the golden sample was answered with HTTP {status}, for now")
        if status != 200:
            return f"the golden sample was answered with HTTP {status}: {answer.get('error', '')}"
        problem = difference(sample, answer.get("outputs") or (), question.tolerance)
        if not problem:
            self._remember(proof)
        return problem

    def _remember(self, proof: str) -> None:
        self._proven[proof] = None
        while len(self._proven) > MAX_REMEMBERED:
            del self._proven[next(iter(self._proven))]

    async def _json(
        self, method: str, url: str, *, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        async with self._session.request(
            method, url, json=body, timeout=TIMEOUT, allow_redirects=False
        ) as response:
            raw = bytearray()
            async for chunk in response.content.iter_any():
                raw += chunk
                if len(raw) > MAX_ANSWER_BYTES:
                    raise ValueError("the answer is too large")
            document = await asyncio.to_thread(_parse, bytes(raw))
            return response.status, document


def _parse(raw: bytes) -> dict[str, Any]:
    document = json.loads(raw)
    if not isinstance(document, dict):
        raise ValueError(  # noqa: TRY004 - what a pod sends is a value, not an argument
            "the answer is not a JSON object"
        )
    return document


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
