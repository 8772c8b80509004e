"""What the Kubernetes API answers when it does not do as asked.

It is apart from the client, whose libraries take seconds to import: who reads no cluster need not wait.
"""

from __future__ import annotations


class KubeError(Exception):
    """The Kubernetes API refused or could not be asked; `status` is 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
