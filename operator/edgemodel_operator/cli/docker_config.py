"""The user's own registry logins: `config.json` of Docker, and the helper programs that it names.

Format: https://docs.docker.com/reference/cli/docker/login/#credential-stores; a helper takes the name of a
server on standard input and answers `{"ServerURL": …, "Username": …, "Secret": …}`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgemodel_operator.oci.auth import Credential, InvalidCredentials, parse_docker_config

_HELPER_SECONDS = 30
_TOKEN_USER = "<token>"  # noqa: S105 - a marker of the protocol: the secret is an identity token

log = logging.getLogger(__name__)


def docker_config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Give the file that `docker login` writes: in DOCKER_CONFIG, or in `~/.docker`."""
    folder = environment.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def read_logins(path: Path, hosts: Iterable[str]) -> dict[str, Credential]:
    """Give the logins for these registries (`host[:port]`); no file: none. Raises InvalidCredentials."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidCredentials(f"{path} cannot be read: {error.strerror}") from error
    try:
        document = json.loads(data)
    except ValueError as error:
        raise InvalidCredentials(f"{path} is not JSON.") from error
    if not isinstance(document, dict):
        raise InvalidCredentials(f"{path} is not a JSON object.")
    written = parse_docker_config(data) if "auths" in document else {}
    helped = {host: _ask_helper(document, host) for host in sorted(set(hosts))}
    return {**written, **{host: login for host, login in helped.items() if login is not None}}


def _ask_helper(document: Mapping[str, Any], host: str) -> Credential | None:
    helpers = document.get("credHelpers")
    helper = helpers.get(host) if isinstance(helpers, dict) else None
    name = helper or document.get("credsStore")
    if not isinstance(name, str) or not name or "/" in name:
        return None
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"], input=host, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s gives no login for %s: %s", program, host, error)
        return None
    return _parse_answer(done.stdout) if done.returncode == 0 else None


def _parse_answer(text: str) -> Credential | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    user, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str) or user in {"", _TOKEN_USER}:
        return None
    return Credential(user, secret)
