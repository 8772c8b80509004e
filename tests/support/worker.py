"""Running the build worker as a program, in surroundings of the test's choice."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.failures import BuildFailure
from edgemodel_operator.build.protocol import decode_message, encode_request
from edgemodel_operator.build.request import BuildRequest, BuildResult


@dataclass(frozen=True)
class Surroundings:
    """What a process is given besides its work: environment, umask, and the folder in which it runs."""

    environment: Mapping[str, str]
    umask: int
    folder: Path


async def build_in(surroundings: Surroundings, request: BuildRequest, work: Path) -> BuildResult:
    """Build in a worker process of its own; fails the test when the build fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edgemodel_operator.build",
        "--work",
        str(work),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **surroundings.environment},
        umask=surroundings.umask,
        cwd=surroundings.folder,
    )
    output, _ = await process.communicate(encode_request(request))
    message = decode_message(output.splitlines()[-1])
    assert not isinstance(message, BuildFailure), message.message
    assert isinstance(message, BuildResult)
    return message
