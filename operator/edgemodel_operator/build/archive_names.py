"""Which names an archive may hold. Pure.

Names become files on whatever file system a node has: those that one of them would take for the same, or for
something else than a plain path below a folder, are refused.
"""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from edgemodel_operator.oci.layer import InvalidEntry, check_path

MAX_PART_BYTES = 255
MAX_NAME_BYTES = 1024
_IGNORED = frozenset({"__MACOSX", ".DS_Store"})


class InvalidName(Exception):  # noqa: N818 - reads as the fact it states
    """A name is refused; the message is a sentence."""


class NameBook:
    """The names of an archive seen so far, by what the most careless file system makes of them."""

    def __init__(self, max_entries: int) -> None:
        self._left = self._max = max_entries
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, name: str, *, folder: bool) -> str | None:
        """Take the name of an entry and give the path to write it to; None: it is left out.

        Left out are what a Mac adds of its own, and the folder of the archive itself. Raises InvalidName.
        """
        self._left -= 1
        if self._left < 0:
            raise InvalidName(f"The archive holds more than {self._max} files and folders; that is refused.")
        path = _plain(name, folder=folder)
        if not path or any(part in _IGNORED or part.startswith("._") for part in path.split("/")):
            return None
        for parent in PurePosixPath(path).parents:
            if parent.parts:
                self._add_folder(str(parent))
        if folder:
            self._add_folder(path)
        else:
            self._add_file(path)
        return path

    def _add_folder(self, path: str) -> None:
        key = _folded(path)
        self._refuse(self._files.get(key), path)
        known = self._folders.setdefault(key, path)
        if known != path:
            self._refuse(known, path)

    def _add_file(self, path: str) -> None:
        key = _folded(path)
        self._refuse(self._files.get(key) or self._folders.get(key), path)
        self._files[key] = path

    def _refuse(self, known: str | None, path: str) -> None:
        if known == path:
            raise InvalidName(f"The archive holds {path!r} twice.")
        if known is not None:
            raise InvalidName(
                f"The archive holds both {known!r} and {path!r}, which some file systems take for one: "
                "rename one of them."
            )


def _plain(name: str, *, folder: bool) -> str:
    """Give the path in its plain form; empty for the folder of the archive itself."""
    path = name.removeprefix("./")
    if folder:
        path = path.removesuffix("/")
    if path in {"", "."} and folder:
        return ""
    try:
        check_path(path)
    except InvalidEntry as error:
        raise InvalidName(f"The archive holds a name that is refused: {error}") from error
    if len(path.encode()) > MAX_NAME_BYTES or max(len(p.encode()) for p in path.split("/")) > MAX_PART_BYTES:
        raise InvalidName(f"The archive holds a name that is too long: {path[:64]!r}….")
    return path


def _folded(path: str) -> str:
    """Give what is left of a name where case and the ways to write a character make no difference."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
