"""Asking a process of its own: one request on its standard input, one answer on its standard output."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

_PIECE_BYTES = 65_536


@dataclass(frozen=True)
class Asked:
    """How the process ended, and what it had written by then."""

    code: int
    """Its exit status; negative: the signal that ended it."""
    output: bytes

    @property
    def ending(self) -> str:
        """Say how it ended, as the end of a sentence."""
        return f"was ended by signal {-self.code}" if self.code < 0 else f"ended with status {self.code}"


@dataclass(frozen=True)
class Program:
    """A module of ours that runs alone; its only argument is the process id of the parent."""

    module: str
    environment: Mapping[str, str]
    seconds: float
    max_answer_bytes: int
    python: str = sys.executable

    async def ask(self, request: bytes) -> Asked:
        """Run it and give its answer; it never outlives the call. Raises TimeoutError."""
        process = await asyncio.create_subprocess_exec(
            self.python,
            *("-m", self.module, str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(self.environment),
        )
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process was started with pipes")
        try:
            async with asyncio.timeout(self.seconds):
                with suppress(BrokenPipeError, ConnectionResetError):
                    process.stdin.write(request)
                    await process.stdin.drain()
                process.stdin.close()
                output = await self._read(process.stdout)
                return Asked(await process.wait(), output)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            # Reading is paused when much more has come than was asked for, and `wait` wants the pipe's end.
            while await process.stdout.read(_PIECE_BYTES):
                pass
            await process.wait()

    async def _read(self, stream: asyncio.StreamReader) -> bytes:
        """Read up to the end, or to the most that an answer may have: it may come in several pieces."""
        output, most = bytearray(), self.max_answer_bytes
        while len(output) < most and (chunk := await stream.read(most - len(output))):
            output += chunk
        return bytes(output)
