"""`edgemodel keygen`: a signing key pair, as Secrets for the cluster or as files for a shell."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

import click
import yaml

from edgemodel_operator.api.names import FIELD_MANAGER
from edgemodel_operator.cli.key_files import KeyFilesExist, write_key_pair
from edgemodel_operator.cli.outcome import Exit, end
from edgemodel_operator.cli.password import new_password, password_in_environment
from edgemodel_operator.signing.keys import SECRET_PUBLIC_KEY, KeyKind, generate_key_pair, secret_data

KINDS = {
    "ecdsa-p256": KeyKind.ECDSA_P256,
    "ecdsa-p384": KeyKind.ECDSA_P384,
    "ed25519": KeyKind.ED25519,
    "rsa-3072": KeyKind.RSA,
}


@click.command("keygen")
@click.option("--kind", type=click.Choice(list(KINDS)), default="ecdsa-p256", show_default=True,
              help="The kind of key. cosign reads all of them.")  # fmt: skip
@click.option("--output-dir", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Write `cosign.key` and `cosign.pub` into this folder in place of Secrets.")  # fmt: skip
@click.option("--name", default="edgemodel-signing-key", show_default=True, help="Secret with the key pair.")
@click.option("--public-name", default="edgemodel-signing-public", show_default=True,
              help="Secret with the public key alone, for TrustPolicies.")  # fmt: skip
@click.option("--namespace", default="edgemodel-system", show_default=True, help="Namespace of both Secrets.")
def keygen_command(kind: str, output_dir: Path | None, name: str, public_name: str, namespace: str) -> None:
    """Make a signing key pair in cosign's encrypted format.

    Prints Secrets, as `cosign generate-key-pair k8s://` would make them: pipe them into
    `kubectl create -f -`, which refuses to replace a key. The password is that in COSIGN_PASSWORD; else one
    is made up and stored in the Secret. With --output-dir two files are written, never over others, and the
    password is that in COSIGN_PASSWORD or is asked for.
    """
    if output_dir is not None:
        _write_files(output_dir, KINDS[kind])
        return
    given = password_in_environment()
    password = secrets.token_urlsafe(32).encode() if given is None else given
    fields = secret_data(generate_key_pair(password, KINDS[kind]), password)
    public = {SECRET_PUBLIC_KEY: fields[SECRET_PUBLIC_KEY]}
    documents = [_secret(name, namespace, fields), _secret(public_name, namespace, public)]
    click.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)


def _write_files(folder: Path, kind: KeyKind) -> None:
    try:
        password = new_password()
        for written in write_key_pair(folder, lambda: generate_key_pair(password, kind)):
            click.echo(str(written))
    except KeyFilesExist as error:
        end(Exit.WRONG_INPUT, str(error), "KeyFilesExist")
    except OSError as error:
        end(Exit.FAILED, f"{folder}: {error.strerror}", "CannotWrite")


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
