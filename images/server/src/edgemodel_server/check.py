"""``--check``: put every model through its start-up checks without serving it."""

from edgemodel_server.discovery import find_sources
from edgemodel_server.errors import StartError
from edgemodel_server.log import log_error, log_info
from edgemodel_server.manifest import Source
from edgemodel_server.runtimes import LoadOptions
from edgemodel_server.settings import Settings
from edgemodel_server.startup import Checks, prepare


def check_models(settings: Settings) -> int:
    """Return 0 if every model passes, else 1; the log says what was found."""
    found = find_sources(settings)
    failures = list(found.failures)
    for source in found.sources:
        try:
            prepared = prepare(source, make_checks(settings, source))
        except StartError as error:
            failures.append(error)
        else:
            log_info("model passed", model=source.name, version=source.version, **prepared.facts())
    for failure in failures:
        log_error("check failed", reason=failure.reason, message=failure.message)
    return 1 if failures else 0


def make_checks(settings: Settings, source: Source) -> Checks:
    """Return what the command line asks of a model, and its own golden sample where that names none."""
    load = LoadOptions(
        runtime=settings.runtime_for(source.name),
        provider=settings.require_provider,
        provider_options=settings.provider_options,
        cpu_fallback=settings.allow_cpu_fallback,
        delegate=settings.delegate,
    )
    golden = settings.golden_for(source.name) or source.golden_path
    return Checks(golden, settings.golden_tolerance, load, settings.max_batch_size)
