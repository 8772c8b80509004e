"""Model files in entries of a ConfigMap, which the caller has read."""

from __future__ import annotations

from pathlib import Path

from edgemodel_operator.api.source import ConfigMapFile, ConfigMapSource
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance, Sink
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.sources.files import Fetch

_SHOWN_ENTRIES = 5


def entry_files(source: ConfigMapSource, access: SourceAccess) -> Fetch[ConfigMapFile]:
    """Give what fetches entries of the ConfigMap."""

    async def fetch(
        file: ConfigMapFile, endings: tuple[str, ...], destination: Path, allowance: Allowance
    ) -> SourceFile:
        content = access.config_map.get(file.key)
        if content is None:
            shown = ", ".join(sorted(access.config_map)[:_SHOWN_ENTRIES]) or "none at all"
            raise fail(
                Reason.SOURCE_NOT_FOUND,
                f"The ConfigMap {source.name} has no entry {file.key}; it has: {shown}.",
            )
        with Sink(destination, allowance) as sink:
            sink.begin(len(content))
            sink.write(content)
            return sink.finish(file.key)

    return fetch
