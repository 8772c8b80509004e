"""Asking a process of its own: whatever it writes, the call comes to an end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from edgemodel_operator.build.asking import Program

FLOOD = "import sys\nsys.stdout.write('x' * {})\nsys.stdout.flush()\n"


@pytest.mark.parametrize("more", [0, 50_000, 200_000, 2_000_000])
async def test_a_program_that_says_more_than_it_may_is_ended(tmp_path: Path, more: int) -> None:
    (tmp_path / "flood.py").write_text(FLOOD.format(1000 + more) + "import time\ntime.sleep(600)\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    program = Program("flood", environment, seconds=1.0, max_answer_bytes=1000)
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError):
            await program.ask(b"")
