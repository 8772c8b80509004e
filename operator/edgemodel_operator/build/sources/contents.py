"""Which files of an opened archive are the model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from edgemodel_operator.build.sources.wanted import Want, fits

_SHOWN = 5


class NoModel(ValueError):  # noqa: N818 - reads as the fact it states
    """The archive does not say which of its files is the model; the message is a sentence."""


def choose_files(paths: Sequence[str], want: Want, path: str = "") -> tuple[str, ...]:
    """Choose the files of the model, the main one first, the others in order.

    `path` is the main file or the folder to look in; empty: the whole archive. Raises NoModel.
    """
    main = _main(paths, want, path.strip("/"))
    folder = PurePosixPath(main).parent
    others = [
        other for other in sorted(paths) if other != main and PurePosixPath(other).is_relative_to(folder)
    ]
    if want.beside:
        return (main, *others)
    if want.weights:
        return (main, _weights(main, others, want))
    return (main,)


def _main(paths: Sequence[str], want: Want, path: str) -> str:
    if path in paths:
        return path
    inside = [one for one in paths if not path or PurePosixPath(one).is_relative_to(path)]
    fitting = sorted(one for one in inside if fits(one, want.main))
    if len(fitting) == 1:
        return fitting[0]
    where = f"in {path!r}" if path else "in it"
    if len(fitting) > 1:
        shown = ", ".join(fitting[:_SHOWN])
        raise NoModel(f"{len(fitting)} files {where} could be meant ({shown}): name one by `archive.path`.")
    endings = " or ".join(want.main)
    shown = ", ".join(sorted(paths)[:_SHOWN])
    raise NoModel(f"There is no {endings} file {where}; it holds {shown}{_more(paths)}.")


def _weights(main: str, others: Sequence[str], want: Want) -> str:
    fitting = [other for other in others if fits(other, want.weights)]
    stem = PurePosixPath(main).with_suffix("")
    same = [other for other in fitting if PurePosixPath(other).with_suffix("") == stem]
    chosen = same or fitting
    if len(chosen) != 1:
        endings = " or ".join(want.weights)
        count = f"{len(chosen)} {endings} files" if chosen else f"no {endings} file"
        raise NoModel(f"{main} needs its weights, and there are {count} beside it: name them alike.")
    return chosen[0]


def _more(paths: Sequence[str]) -> str:
    return f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
