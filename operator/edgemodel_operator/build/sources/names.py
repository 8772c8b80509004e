"""How fetched files are called on the local disk: as at their source, where that is a plain name. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.oci.layer import InvalidEntry, check_path

_LONGEST = 200


def local_names(called: tuple[str, ...], want: Want) -> tuple[str, ...]:
    """Name the model file and, where there is one, the file of its weights.

    `called` is how the source calls them, paths included. Folders go, but for weights in a folder below that
    of the model: the model may look for them there. What is no plain name is called `model` and `weights`.
    """
    main, *others = called
    name = _plain(PurePosixPath(main).name) or f"model{_suffix(want.main)}"
    if not others:
        return (name,)
    below = _below(PurePosixPath(main).parent, PurePosixPath(others[0]))
    weights = _plain(below) or f"weights{_suffix(want.weights)}"
    if f"{weights}/".casefold().startswith(f"{name}/".casefold()):  # one cannot be file and folder
        return (f"model{_suffix(want.main)}", f"weights{_suffix(want.weights)}")
    return (name, weights)


def _below(folder: PurePosixPath, path: PurePosixPath) -> str:
    # A URL without a folder of its own says nothing about where things lie.
    inside = folder.parts and path.is_relative_to(folder)
    return str(path.relative_to(folder)) if inside else path.name


def _plain(name: str) -> str:
    try:
        check_path(name)
    except InvalidEntry:
        return ""
    return name if len(name.encode()) <= _LONGEST else ""


def _suffix(endings: tuple[str, ...]) -> str:
    return next((end for end in endings if end.startswith(".")), "")
