"""Running `edgemodel` as a person does: a process of its own, with files and an environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


async def start_edgemodel(
    *arguments: str, env: Mapping[str, str] | None = None, in_background: bool = False
) -> asyncio.subprocess.Process:
    """Start a command in a process group of its own, as a shell does; in the background SIGINT is ignored."""
    return await asyncio.create_subprocess_exec(
        "env",
        "--ignore-signal=INT" if in_background else "--default-signal=INT",
        sys.executable,
        "-m",
        "edgemodel_operator",
        "cli",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
        process_group=0,
    )


async def edgemodel(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end."""
    process = await start_edgemodel(*arguments, env=env)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def model_document(source: Mapping[str, Any], repository: str, **changes: Any) -> dict[str, Any]:
    """Give an EdgeModel as a person writes it; `changes` are fields of the spec."""
    return {
        "apiVersion": "edgemodel.dev/v1alpha1",
        "kind": "EdgeModel",
        "metadata": {"name": "line-orientation"},
        "spec": {
            "model": {"format": "ONNX", "version": "7", "source": dict(source)},
            "image": {"repository": repository},
            "targets": [{"accelerator": "cpu"}],
            **changes,
        },
    }


def write_documents(path: Path, *documents: Mapping[str, Any]) -> Path:
    """Write Kubernetes objects as one YAML file."""
    path.write_text(yaml.safe_dump_all(documents))
    return path
