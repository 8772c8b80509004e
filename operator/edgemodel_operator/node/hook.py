"""The program in containerd's `bin_dir`: there once it works, gone when the agent leaves for good."""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
from pathlib import Path

from edgemodel_operator.node.record import sync_folder, write_durably
from edgemodel_operator.node.runtime import command, install_runtime, remove_runtimes

NAME = "edgemodel"
_TRY_SECONDS = 20.0

_log = logging.getLogger(__name__)


class Hook:
    """Installs and removes the program. It is a shell script of three lines, for nodes have /bin/sh."""

    def __init__(self, state: Path, bin_dir: Path) -> None:
        self._state = state
        self.path = bin_dir / NAME

    @property
    def is_installed(self) -> bool:
        """Whether containerd will start it."""
        return self.path.exists()

    def install(self) -> None:
        """Put it in place; the agent must be answering. Raises CannotCopy, OSError, SubprocessError."""
        runtime = install_runtime(self._state)
        argv = command(runtime, self._state, self.path)
        self._try(argv)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # containerd starts everything that lies in its folder: the unfinished file has to lie beside it.
        partial = self.path.parent.parent / f".{NAME}"
        write_durably(partial, script(argv).encode(), 0o755)
        partial.replace(self.path)
        sync_folder(self.path.parent)
        remove_runtimes(self._state, but=runtime)
        _log.info("containerd on this node asks before each pull, by %s", self.path)

    def remove(self) -> None:
        """Take everything away, the program first; nothing of the state is kept."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir():
            sync_folder(self.path.parent)
        for path in self._state.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif not path.is_socket():
                path.unlink(missing_ok=True)
        _log.info("Taken away from this node: containerd pulls without asking")

    def _try(self, argv: list[str]) -> None:
        """Run the copy as containerd will. Raises SubprocessError unless it gets the agent's answer."""
        tried = subprocess.run(
            [*argv, "-ping", "1"], capture_output=True, text=True, check=False, timeout=_TRY_SECONDS, env={}
        )
        if tried.returncode:
            said = (tried.stderr or tried.stdout).strip()[-500:]
            raise subprocess.SubprocessError(f"the client does not work on this node: {said}")


def script(argv: list[str]) -> str:
    """Give the program's text. Who deletes the copy by hand wants it gone, and is not to lose all pulls."""
    quoted = [shlex.quote(part) for part in argv]
    return (
        "#!/bin/sh\n"
        "# Installed by edgemodel-node: may containerd pull this image? To switch it off, delete this file.\n"
        f'[ -e {quoted[0]} ] || {{ echo "edgemodel-node was deleted from this node"; exit 0; }}\n'
        f'exec {" ".join(quoted)} "$@"\n'
    )
