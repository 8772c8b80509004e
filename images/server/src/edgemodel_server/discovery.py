"""Which models to serve, by the command line: those named, else every folder under the model root."""

from dataclasses import dataclass

from edgemodel_server.errors import Reason, StartError
from edgemodel_server.manifest import Source, find_folders, read_source
from edgemodel_server.settings import NamedPath, Settings


@dataclass(frozen=True, slots=True)
class Found:
    """The models that can be named, and what is wrong with the rest."""

    sources: tuple[Source, ...]
    failures: tuple[StartError, ...]


def find_sources(settings: Settings) -> Found:
    """Read the manifests of all models to serve; a bad one does not take the others down."""
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
    return Found(tuple(sources.values()), tuple(failures))
