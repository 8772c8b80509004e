"""`edgemodel`: commands for people."""

from __future__ import annotations

import base64
import secrets

import click
import yaml

from edgemodel_operator.api.names import FIELD_MANAGER
from edgemodel_operator.signing.keys import generate_key_pair, secret_data


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Work with the EdgeModel operator."""


@main.command()
@click.option("--name", default="edgemodel-signing-key", show_default=True, help="Name of the Secret.")
@click.option("--namespace", default="edgemodel-system", show_default=True, help="Namespace of the Secret.")
def keygen(name: str, namespace: str) -> None:
    """Print a Secret with a new signing key pair, as `cosign generate-key-pair k8s://` would make it.

    Pipe it into kubectl: `edgemodel keygen | kubectl create -f -`. `create` refuses to replace a key.
    """
    password = secrets.token_urlsafe(32).encode()
    fields = secret_data(generate_key_pair(password), password)
    document = {
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
    click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)
