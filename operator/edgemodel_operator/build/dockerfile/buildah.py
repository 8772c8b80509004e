"""The program that builds one Dockerfile in a pod: it makes a user namespace and becomes Buildah in it.

    python -m edgemodel_operator.build.dockerfile.buildah --context DIR --dockerfile NAME --base LAYOUT
        --out LAYOUT --state DIR [--network] [--argument NAME=VALUE]...

takes the folder of a context and the published runtime image as OCI layout, and gives an OCI layout with one
image. Its output is what Buildah prints; its exit status is Buildah's. It needs no daemon, no set-user-id
program, no `/etc/subuid` and no rights on the node. There are two ways to run it, told apart by the user:

- As an ordinary user: the only user of the namespace, called root, is this one. Files cannot be given to
  others, and commands run as root alone.
- As root of a pod that has a user namespace of its own (`hostUsers: false`), with CAP_SETUID, CAP_SETGID and
  CAP_SETFCAP: all users of the pod are there, and a Dockerfile may do what it may do anywhere.

Formats: user_namespaces(7), seccomp(2).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from edgemodel_operator.build.limits import ignore_setgroups

BASE_TAG = "runtime"
RESULT_TAG = "result"
"""Which image of a layout is meant."""

PROGRAM = "buildah"
CANNOT_ISOLATE = 3
"""The exit status when the pod does not allow a user namespace; the last line of the output says why."""

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_WHOLE_MACHINE = 2**32 - 1
"""How many users the namespace of the node itself has."""


class CannotIsolate(Exception):  # noqa: N818 - reads as the fact it states
    """The pod does not allow what is needed; the message is a sentence that says what to change."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Become Buildah; gives an exit status only where that is not possible."""
    options = _parse(arguments)
    # The worker's own bound is not that of what it starts: the pod's is.
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    environment = prepare(options.state)
    try:
        enter_namespaces(network=options.network)
    except CannotIsolate as error:
        print(error, file=sys.stderr)
        return CANNOT_ISOLATE
    command = buildah_command(options, one_user=_number_of_users() == 1)
    os.execvpe(command[0], command, environment)  # noqa: S606 - a fixed program, without a shell
    return CANNOT_ISOLATE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgemodel-buildah", description="Build one Dockerfile.")
    parser.add_argument("--context", type=Path, required=True, help="the folder of the context")
    parser.add_argument("--dockerfile", required=True, help="the Dockerfile in the context")
    parser.add_argument("--base", type=Path, required=True, help="the runtime image, as OCI layout")
    parser.add_argument("--out", type=Path, required=True, help="where the OCI layout of the result goes")
    parser.add_argument("--state", type=Path, required=True, help="an empty folder for temporary files")
    parser.add_argument("--network", action="store_true", help="let commands use the network of the pod")
    parser.add_argument("--argument", action="append", default=[], metavar="NAME=VALUE")
    return parser.parse_args(arguments)


def buildah_command(options: argparse.Namespace, *, one_user: bool) -> list[str]:
    """Give the command line of Buildah."""
    base = f"RUNTIME_IMAGE=oci:{options.base}:{BASE_TAG}"
    arguments = [word for value in (*options.argument, base) for word in ("--build-arg", value)]
    return [
        PROGRAM,
        f"--root={options.state}/storage",
        f"--runroot={options.state}/run",
        # Plain folders: needs nothing of the kernel and of the file system below.
        "--storage-driver=vfs",
        *(("--storage-opt=vfs.ignore_chown_errors=true",) if one_user else ()),
        "build",
        "--isolation=chroot",
        "--network=host",  # of the namespace that we made, which has none unless --network says so
        "--layers=false",
        "--no-cache",
        "--format=oci",
        "--identity-label=false",
        *arguments,
        f"--file={options.context / options.dockerfile}",
        f"--tag=oci:{options.out}:{RESULT_TAG}",
        str(options.context),
    ]


def prepare(state: Path) -> dict[str, str]:
    """Make the folders that Buildah wants to exist, and give its environment: nothing of ours."""
    folders = {name: state / name for name in ("storage", "run", "tmp", "home")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        # The volume of a pod with an `fsGroup` hands its set-group-id bit down, also to folders of the image.
        folder.chmod(0o700)
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "XDG_RUNTIME_DIR": str(folders["run"]),
        # Otherwise Buildah would make a user namespace of its own.
        "_CONTAINERS_USERNS_CONFIGURED": "done",
        "BUILDAH_ISOLATION": "chroot",
    }


def enter_namespaces(*, network: bool) -> None:
    """Go on as root of a user namespace with its own mounts, and without `network` with its own network.

    Where several users are to be in it, a child goes on, and this process ends with the child's status:
    only a process outside of the namespace may name them. Raises CannotIsolate.
    """
    kinds = _CLONE_NEWUSER | _CLONE_NEWNS | (0 if network else _CLONE_NEWNET)
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        _unshare(kinds)
        _write_map("setgroups", "deny")
        _write_map("uid_map", f"0 {user} 1")
        _write_map("gid_map", f"0 {group} 1")
        # Buildah sets the groups of each command, which nobody may who is alone in a namespace; and it
        # would be of no effect: whatever they are called, these groups are not there.
        ignore_setgroups()
        return
    users = _number_of_users()
    if users >= _WHOLE_MACHINE:
        raise CannotIsolate(
            "This pod runs as root of the node: set `hostUsers: false`, or run it as another user."
        )
    _go_on_in_child(kinds, f"0 0 {users}")


def _go_on_in_child(kinds: int, every_user: str) -> None:
    inside, outside = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        _unshare(kinds)
        os.write(inside[1], b".")
        if os.read(outside[0], 1) != b".":
            os._exit(CANNOT_ISOLATE)
        return
    os.close(inside[1])
    mapped = os.read(inside[0], 1) == b"." and _map_child(child, every_user)
    os.write(outside[1], b"." if mapped else b"!")
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _map_child(child: int, every_user: str) -> bool:
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(every_user)
    except OSError as error:
        print(
            f"The users of the pod cannot be named in its user namespace ({error.strerror}): give the "
            "container the capabilities SETUID, SETGID and SETFCAP.",
            file=sys.stderr,
        )
        return False
    return True


def _unshare(kinds: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(kinds) != 0:
        why = os.strerror(ctypes.get_errno())
        raise CannotIsolate(
            f"This pod may not make a user namespace ({why}): its seccompProfile must be Unconfined (or one "
            "that allows unshare and mount), and the node must allow user namespaces (sysctl "
            "user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)."
        )


def _write_map(name: str, content: str) -> None:
    Path(f"/proc/self/{name}").write_text(content)


def _number_of_users() -> int:
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    return sum(int(line.split()[2]) for line in lines)


if __name__ == "__main__":
    sys.exit(main())
