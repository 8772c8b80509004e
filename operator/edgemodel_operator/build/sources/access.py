"""What a build was given to reach its source: logins, the data of a Secret, a mounted volume, entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgemodel_operator.oci.auth import Credential


@dataclass(frozen=True)
class SourceAccess:
    """All that the caller read from the cluster on behalf of one source; nothing here is ever shown."""

    logins: Mapping[str, Credential] = field(default_factory=dict, repr=False)
    """Credentials of registries, by `host[:port][/path]`."""
    plain_http: tuple[str, ...] = ()
    """Registries (`host[:port]`) that are spoken to without TLS."""
    authorities: str = ""
    """Certificates (PEM) that are trusted for registries besides those of the system."""
    configured: frozenset[str] = frozenset()
    """Registries that the operator's own configuration names: they may lie at any address."""
    secret: Mapping[str, bytes] | None = field(default=None, repr=False)
    """The data of the Secret that the source names (http and s3); None where it names none."""
    volume: Path | None = None
    """Where the volume of the source is mounted; None outside the Job that mounts it."""
    config_map: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The entries of the ConfigMap that the source names, of `data` (UTF-8) and `binaryData`."""
