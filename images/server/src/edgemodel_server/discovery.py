"""Which models to serve, by the command line: those named, else every folder under the model root."""

from collections.abc import Collection
from dataclasses import dataclass

from edgemodel_server.errors import Reason, StartError
from edgemodel_server.manifest import Source, find_folders, read_source
from edgemodel_server.settings import NamedPath, Settings, refuse_command_line


@dataclass(frozen=True, slots=True)
class Found:
    """The models that can be named, and what is wrong with the rest."""

    sources: tuple[Source, ...]
    failures: tuple[StartError, ...]


def find_sources(settings: Settings) -> Found:
    """Read the manifests of all models to serve; a bad one does not take the others down.

    Exits with status 2 and a sentence where an option is for a model that is not there.
    """
    wanted = settings.models or tuple(NamedPath(None, folder) for folder in find_folders(settings.model_root))
    if not wanted:
        sentence = f"there is no model folder under {settings.model_root}"
        return Found((), (StartError(Reason.LOAD_FAILED, sentence),))
    sources: dict[str, Source] = {}
    failures: list[StartError] = []
    for named in wanted:
        try:
            source = read_source(named.path, named.name)
        except StartError as failure:
            failures.append(failure)
            continue
        if source.name in sources:
            other = sources[source.name].path
            sentence = f'{source.path} and {other} are both called "{source.name}": serve one as NAME=PATH'
            failures.append(StartError(Reason.LOAD_FAILED, sentence))
        else:
            sources[source.name] = source
    if not failures:  # else what has no name yet may be the model that is meant
        _hold_names(settings, sources.keys())
    return Found(tuple(sources.values()), tuple(failures))


def _hold_names(settings: Settings, models: Collection[str]) -> None:
    """Refuse a golden sample or a runtime for a name that no model has: nobody would miss the check."""
    for option, values in (("--golden", settings.golden), ("--runtime", settings.runtimes)):
        for value in values:
            if value.name is not None and value.name not in models:
                there = ", ".join(sorted(models))
                refuse_command_line(f'argument {option}: there is no model "{value.name}", only {there}')
