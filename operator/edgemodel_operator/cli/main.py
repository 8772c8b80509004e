"""`edgemodel`: commands for people."""

from __future__ import annotations

import base64
import secrets
from importlib import import_module
from typing import Any

import click
import yaml
from typing_extensions import override

from edgemodel_operator.api.names import FIELD_MANAGER
from edgemodel_operator.signing.keys import SECRET_PUBLIC_KEY, generate_key_pair, secret_data

_COMMANDS = {"build": "build_command", "inspect": "inspect_command"}
"""Commands that are loaded by name, so that one does not load the libraries of another."""


class _Commands(click.Group):
    """The commands, each of which is imported when it is asked for."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        name = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"edgemodel_operator.cli.{name}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Work with the EdgeModel operator."""


@main.command()
@click.option("--name", default="edgemodel-signing-key", show_default=True, help="Secret with the key pair.")
@click.option(
    "--public-name",
    default="edgemodel-signing-public",
    show_default=True,
    help="Secret with the public key alone, for TrustPolicies.",
)
@click.option("--namespace", default="edgemodel-system", show_default=True, help="Namespace of both Secrets.")
def keygen(name: str, public_name: str, namespace: str) -> None:
    """Print Secrets with a new signing key pair, as `cosign generate-key-pair k8s://` would make it.

    Pipe them into kubectl: `edgemodel keygen | kubectl create -f -`. `create` refuses to replace a key.
    """
    password = secrets.token_urlsafe(32).encode()
    fields = secret_data(generate_key_pair(password), password)
    public = {SECRET_PUBLIC_KEY: fields[SECRET_PUBLIC_KEY]}
    documents = [_secret(name, namespace, fields), _secret(public_name, namespace, public)]
    click.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)


def _secret(name: str, namespace: str, fields: dict[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": FIELD_MANAGER},
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in sorted(fields.items())},
    }
