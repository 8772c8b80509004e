"""The agent's socket: one line with a question in, one line with an answer out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from edgemodel_operator.node.judge import Answer, PullJudge
from edgemodel_operator.node.metrics import NodeMetrics, Outcome

MAX_QUESTION_BYTES = 16384
READ_SECONDS = 2.0

_log = logging.getLogger(__name__)


class PullServer:
    """Answers the clients that containerd starts. `{"ping": "1"}` is answered without being counted."""

    def __init__(self, judge: PullJudge, metrics: NodeMetrics, remember: Callable[[], None]) -> None:
        """`remember` brings new verdicts to the disk: what was pulled must be known after a power cut."""
        self._judge = judge
        self._metrics = metrics
        self._remember = remember
        self._place: tuple[Path, int] | None = None

    @property
    def is_superseded(self) -> bool:
        """Whether a successor, started while we still run, has its own socket where ours was."""
        if self._place is None:
            return False
        path, inode = self._place
        try:
            return path.stat().st_ino != inode
        except FileNotFoundError:
            return False

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncGenerator[None, None]:
        """Serve at a socket of our user alone while the block runs, in place of whoever served there."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, str(partial), limit=MAX_QUESTION_BYTES)
        partial.chmod(0o600)
        self._place = (path, partial.stat().st_ino)
        partial.replace(path)
        try:
            yield
        finally:
            server.close()
            if not self.is_superseded:
                path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(READ_SECONDS):
                    line = await reader.readline()
                answer = await self._decide(line)
            except (TimeoutError, ValueError, RecursionError):
                answer = Answer(Outcome.ERROR, "the question is not one line of JSON with name and digest")
            body = {"allowed": answer.allowed, "reason": answer.reason}
            writer.write(json.dumps(body, ensure_ascii=True).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _decide(self, line: bytes) -> Answer:
        """Answer one question. Raises ValueError for what is none."""
        match json.loads(line):
            case {"ping": _}:
                return Answer(Outcome.ALLOW, "edgemodel-node answers")
            case {"name": str(name), "digest": str(digest)}:
                pass
            case _:
                raise ValueError("no name or digest")
        began = time.perf_counter()
        try:
            answer = await self._judge.decide(name, digest)
            self._remember()
        except asyncio.CancelledError:
            raise
        except Exception:
            # A defect of ours must neither let an image through nor leave the client waiting.
            _log.exception("A pull could not be judged")
            answer = Answer(Outcome.ERROR, "the image could not be verified because of an internal error")
        self._metrics.seconds.observe(time.perf_counter() - began)
        self._count(answer, name, digest)
        return answer

    def _count(self, answer: Answer, name: str, digest: str) -> None:
        self._metrics.pulls.labels(answer.outcome).inc()
        level = logging.INFO if answer.allowed else logging.WARNING
        fields = {"decision": answer.outcome, "image": name, "digest": digest, "reason": answer.reason}
        _log.log(level, "Pull allowed" if answer.allowed else "Pull refused", extra=fields)
