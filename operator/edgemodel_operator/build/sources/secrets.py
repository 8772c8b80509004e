"""Reading the data of the Secret that a source names. No message ever quotes a value."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from edgemodel_operator.api.references import SecretName
from edgemodel_operator.build.failures import Reason, fail

CA_KEY = "ca.crt"


def text_of(secret: Mapping[str, bytes], key: str, name: str) -> str:
    """Give an entry of the Secret `name` as one line of text, without white space around it; empty if none.

    Raises BuildError(SourceSecretInvalid) for an entry that no header can carry.
    """
    try:
        text = secret.get(key, b"").decode().strip()
    except UnicodeDecodeError:
        text = "\x00"
    if not all(character.isprintable() for character in text):
        raise fail(
            Reason.SOURCE_SECRET_INVALID,
            f"The entry `{key}` of the Secret {name} must be one line of printable text.",
        )
    return text


def authorities(secret_name: SecretName | None, secret: Mapping[str, bytes]) -> str | None:
    """Give the certificates to trust besides those of the system (PEM), if the Secret has some.

    Raises BuildError(SourceSecretInvalid).
    """
    if secret_name is None or CA_KEY not in secret:
        return None
    try:
        text = secret[CA_KEY].decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (UnicodeDecodeError, ssl.SSLError, ValueError) as error:
        raise fail(
            Reason.SOURCE_SECRET_INVALID,
            f"The entry `{CA_KEY}` of the Secret {secret_name.name} holds no certificates in PEM.",
        ) from error
    return text
