"""One local cluster per machine: who has it, and who uses it.

Addresses inside, control groups and mount points are fixed, so a second cluster would fight the first. The
owner is a working tree; another one gets a sentence that names it.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from cluster.cgroups import processes
from cluster.commands import ClusterError
from cluster.kernel import boot_id
from cluster.locks import exclusive, try_lock
from cluster.places import CHECKOUT, RUN

_RECORD = RUN / "owner.json"
_LOCK = RUN.with_name(f"{RUN.name}.lock")
_USERS = RUN.with_name(f"{RUN.name}.users")


@dataclass(frozen=True)
class Owner:
    """The working tree that a cluster belongs to, and the loopback ports that lead into it."""

    checkout: str
    since: str
    boot: str
    api_port: int
    registry_port: int


def make_owner(api_port: int, registry_port: int) -> Owner:
    """Return the record of a cluster that this working tree starts now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Owner(str(CHECKOUT), now, boot_id(), api_port, registry_port)


def write_owner(owner: Owner) -> None:
    """Record the owner, before anything is started."""
    RUN.mkdir(parents=True, exist_ok=True)
    partial = _RECORD.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(owner)), encoding="utf-8")
    partial.rename(_RECORD)


def read_owner() -> Owner | None:
    """Return who owns the cluster that runs, or None; what a crash or a reboot left does not count."""
    try:
        owner = Owner(**json.loads(_RECORD.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return owner if owner.boot == boot_id() and processes() else None


def refuse_foreign(owner: Owner | None) -> None:
    """Raise ClusterError when the cluster that runs belongs to another working tree."""
    if owner is not None and owner.checkout != str(CHECKOUT):
        raise ClusterError(
            f"the local cluster of this machine belongs to {owner.checkout} (since {owner.since}): "
            "take it down there with `python -m cluster down`, or from here with `down --force`"
        )


@contextmanager
def changing(*, patience_s: float = 1800) -> Iterator[None]:
    """Keep every other process from starting or stopping the machine's cluster for the length of the block.

    Raises ClusterError, naming the holder, when it has to wait for longer than `patience_s`.
    """
    try:
        with exclusive(_LOCK, patience_s=patience_s) as file:
            file.write(f"of {CHECKOUT}\n")
            file.flush()
            yield
    except TimeoutError as busy:
        raise ClusterError(f"the local cluster is being changed by {busy}: try again later") from None
    except PermissionError as refused:
        raise ClusterError(f"the local cluster needs root: {refused}") from None


def _lock_holders(inode: int) -> list[int]:
    """Return the processes that hold a lock on a file, as the kernel lists them."""
    lines = (line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines())
    return sorted({int(fields[4]) for fields in lines if fields[5].rpartition(":")[2] == str(inode)})


class Use:
    """A note that a test session uses the cluster, so that another one does not take it down meanwhile."""

    def __init__(self, path: Path = _USERS) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a+", encoding="utf-8")

    def is_alone(self) -> bool:
        """Say whether no other session uses the cluster; keeps others out until `share` or `end`."""
        return try_lock(self._file, shared=False)

    def refuse_others(self) -> None:
        """Raise ClusterError, naming the processes, when others use the cluster; keeps new ones out."""
        if not self.is_alone():
            inode = os.fstat(self._file.fileno()).st_ino
            users = ", ".join(f"process {pid}" for pid in _lock_holders(inode)) or "another session"
            raise ClusterError(f"{users} uses the cluster: wait for it, or say `down --force`")

    def share(self) -> None:
        """Go on using the cluster beside others."""
        try_lock(self._file, shared=True)

    def end(self) -> None:
        """Stop using the cluster."""
        self._file.close()
