"""What the cluster has to change for the whole machine, recorded before and put back by `down`.

These are three sysctls that the kubelet sets, the handler that runs arm64 programs under emulation, and the
empty folders that a node's mount namespace covers with its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.commands import CommandFailed, run, try_run
from cluster.places import STATE

_RECORD = STATE / "kernel.json"
_SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_HANDLER = "edgemodel-aarch64"

COVERED_FOLDERS = (
    "/var/lib/kubelet",
    "/run/containerd",
    "/run/netns",
    "/var/log/pods",
    "/var/log/containers",
    "/var/lib/cni",
    "/etc/cni/net.d",
    "/opt/containerd/image-verifier",
    "/var/lib/edgemodel-node",
    "/usr/libexec/kubernetes/kubelet-plugins/volume/exec",
)
"""Folders that every node sees as its own, so that every program keeps its default paths."""

# The ELF header of a 64-bit little-endian program for machine 183 (AArch64); the mask ignores the ABI bytes
# and lets both executables and position-independent programs through.
_MAGIC = r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_INTERPRETER = "/usr/libexec/qemu-binfmt/aarch64-binfmt-P"


def boot_id() -> str:
    """Return a text that is another one after every boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def change_kernel() -> None:
    """Record the machine's state, unless a start that was never undone did, then prepare it."""
    record = _read_record()
    if record is None:
        record = {
            "boot": boot_id(),
            "sysctls": {name: _sysctl(name).read_text(encoding="ascii").strip() for name in _SYSCTLS},
            "binfmt_mounted": _binfmt_is_mounted(),
            "arm64_enabled": _runs_arm64(),
            "made_folders": _missing_folders(),
        }
        STATE.mkdir(parents=True, exist_ok=True)
        partial = _RECORD.with_suffix(".partial")
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.rename(_RECORD)
    for folder in COVERED_FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)
    enable_arm64()


def restore_kernel() -> None:
    """Put back everything that `change_kernel` recorded; after a reboot only folders are left."""
    record = _read_record()
    if record is None:
        return
    if record["boot"] == boot_id():
        for name, value in record["sysctls"].items():
            _sysctl(name).write_text(value, encoding="ascii")
        if not record.get("arm64_enabled", False):
            disable_arm64()
        if not record["binfmt_mounted"] and _binfmt_is_mounted():
            try_run(["umount", str(_BINFMT)])
    for folder in record["made_folders"]:
        with suppress(OSError):
            Path(folder).rmdir()
    _RECORD.unlink()


@contextmanager
def arm64_programs() -> Iterator[None]:
    """Let the machine run arm64 programs for a while, and put it back to what it did before."""
    could = _runs_arm64()
    enable_arm64()
    try:
        yield
    finally:
        if not could:
            disable_arm64()


def enable_arm64() -> None:
    """Let the kernel run arm64 programs through qemu, also where no qemu is in sight (in containers)."""
    if not _binfmt_is_mounted():
        run(["mount", "-t", "binfmt_misc", "none", str(_BINFMT)])
    if _runs_arm64():
        return
    # P: the program keeps its argv[0]. F: the interpreter is opened now, so containers need no copy of it.
    entry = f":{_HANDLER}:M::{_MAGIC}:{_MASK}:{_INTERPRETER}:PF"
    try:
        (_BINFMT / "register").write_text(entry, encoding="ascii")
    except OSError as refused:
        raise CommandFailed(["binfmt_misc", entry], f"was refused by the kernel: {refused}", "") from None


def disable_arm64() -> None:
    """Take back what `enable_arm64` told the kernel. A handler of the machine's own stays."""
    with suppress(OSError):
        (_BINFMT / _HANDLER).write_text("-1", encoding="ascii")


def _runs_arm64() -> bool:
    return any((_BINFMT / name).exists() for name in (_HANDLER, "qemu-aarch64"))


def _binfmt_is_mounted() -> bool:
    return (_BINFMT / "register").exists()


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name


def _missing_folders() -> list[str]:
    """Return the folders that `down` may remove again, the innermost first."""
    missing: list[str] = []
    for name in COVERED_FOLDERS:
        folder = Path(name)
        while not folder.exists() and str(folder) not in missing:
            missing.append(str(folder))
            folder = folder.parent
    return sorted(missing, key=len, reverse=True)


def _read_record() -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(_RECORD.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record
