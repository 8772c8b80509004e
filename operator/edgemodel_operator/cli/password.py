"""The password of a private key: from COSIGN_PASSWORD, as for cosign, or asked for. Never an argument."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import click

from edgemodel_operator.signing.command_signer import PASSWORD_VARIABLE


def password_in_environment(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """Give the password in COSIGN_PASSWORD, which may be empty; None if it is not set."""
    value = environment.get(PASSWORD_VARIABLE)
    return None if value is None else os.fsencode(value)


def password_for(what: str) -> bytes:
    """Give the password that opens `what`. Raises click.UsageError where nobody can be asked."""
    given = password_in_environment()
    return _ask(f"Password of {what}") if given is None else given


def new_password() -> bytes:
    """Give the password for a new key; a person types it twice. Raises click.UsageError."""
    given = password_in_environment()
    return _ask("Password of the new key", twice=True) if given is None else given


def _ask(question: str, *, twice: bool = False) -> bytes:
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"there is no terminal to ask for the password: set {PASSWORD_VARIABLE} (empty: no password)"
        )
    answer: str = click.prompt(
        question, default="", show_default=False, hide_input=True, confirmation_prompt=twice, err=True
    )
    return os.fsencode(answer)
