"""The environment of the processes that a build starts: what Python and TLS need, and nothing of ours."""

from __future__ import annotations

import os

_KEPT = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONPATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "VIRTUAL_ENV",
)


def child_environment(**additions: str) -> dict[str, str]:
    """Give the environment for a child process: few names, so that no secret travels along."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONUTF8": "1", **additions}
