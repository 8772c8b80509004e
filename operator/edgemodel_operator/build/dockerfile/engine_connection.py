"""The way to a Docker Engine: a socket, or TCP with certificates that the configuration names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import APIError, DockerException

from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.oci.descriptor import Platform
from edgemodel_operator.settings import DockerSettings

TROUBLES = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What the library raises when an engine does not do what it is asked."""

_SILENCE_SECONDS = 120
"""How long an engine may be silent, but for the commands of a Dockerfile."""


@contextmanager
def connected(settings: DockerSettings, platform: Platform) -> Iterator[tuple[docker.DockerClient, str]]:
    """Connect to the engine that is configured for the platform; gives the client and the engine's URL.

    Raises BuildError(EngineNotConfigured) when there is none or it may not be spoken to like that.
    """
    url = next((url for name, url in settings.engines.items() if name.value == str(platform)), None)
    if url is None:
        named = ", ".join(sorted(name.value for name in settings.engines)) or "none"
        raise fail(
            Reason.ENGINE_NOT_CONFIGURED,
            f"No Docker Engine is configured for {platform} (there is {named}): add one to "
            "`builds.docker.engines`, name fewer `platforms`, or take `builder: Buildah`.",
        )
    with in_words(platform, url):
        client = _open(settings, url)
    try:
        yield client, url
    finally:
        client.close()


def _open(settings: DockerSettings, url: str) -> docker.DockerClient:
    """Connect, speaking the engine's own version of the API."""
    tls = _tls(settings, url)
    first = docker.APIClient(
        base_url=url, tls=tls, timeout=_SILENCE_SECONDS, version=DEFAULT_DOCKER_API_VERSION
    )
    with closing(first) as probe:
        # Certificates and proxies that the environment names are for others.
        probe.trust_env = False
        version = str(probe.version(api_version=False)["ApiVersion"])
    client = docker.DockerClient(base_url=url, tls=tls, timeout=_SILENCE_SECONDS, version=version)
    client.api.trust_env = False
    return client


def _tls(settings: DockerSettings, url: str) -> Any:
    if not url.startswith("tcp://"):
        return False
    if settings.tls_secret_dir:
        folder = Path(settings.tls_secret_dir)
        return docker.tls.TLSConfig(
            client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
            ca_cert=str(folder / "ca.pem"),
            verify=True,
        )
    host = url.removeprefix("tcp://").rpartition(":")[0]
    if host not in {"127.0.0.1", "[::1]", "localhost"}:
        raise fail(
            Reason.ENGINE_NOT_CONFIGURED,
            f"The Docker Engine at {url} would be spoken to without TLS, by anybody: give it certificates, "
            "and name their folder in `builds.docker.tlsSecretDir`.",
        )
    return False


@contextmanager
def in_words(platform: Platform, url: str) -> Iterator[None]:
    """Turn what goes wrong in the block into BuildError(EngineUnavailable)."""
    try:
        yield
    except TROUBLES as error:
        raise fail(
            Reason.ENGINE_UNAVAILABLE,
            f"The Docker Engine for {platform} at {url} gives no usable answer: {_shortened(error)}",
        ) from error


def _shortened(error: Exception) -> str:
    text = str(error.explanation if isinstance(error, APIError) and error.explanation else error)
    return " ".join(text.split())[:500]
