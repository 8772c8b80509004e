"""The encrypted private key file of `cosign generate-key-pair`.

A PEM block whose body is a JSON document: scrypt turns the password into a 32-byte key, NaCl's secretbox
holds the PKCS#8 DER of the private key. Format: cosign's `pkg/cosign/keys.go` and the `encrypted` package of
go-securesystemslib.
"""

import base64
import binascii
import json
import os
import re

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from edgemodel_operator.signing.errors import FormatError, KeyLoadError, KeyProblem
from edgemodel_operator.signing.strict_json import (
    member,
    object_member,
    parse_strict_json,
    string_member,
)
from edgemodel_operator.signing.wipe import wipe

PEM_LABEL = "ENCRYPTED SIGSTORE PRIVATE KEY"
LEGACY_PEM_LABEL = "ENCRYPTED COSIGN PRIVATE KEY"

MAX_KEY_FILE_BYTES = 64 * 1024
MAX_SCRYPT_MEMORY_BYTES = 64 * 1024 * 1024
"""Cosign's own parameters need exactly this much (128 * N * r); a hostile file could ask for terabytes."""

SCRYPT_N = 65536
SCRYPT_R = 8
SCRYPT_P = 1
SALT_BYTES = 32
MAX_SALT_BYTES = 64

_PEM = re.compile(
    rb"\A\s*-----BEGIN (?P<label>[A-Z0-9 ]{1,64})-----\r?\n(?P<body>[A-Za-z0-9+/=\s]*?)\r?\n?"
    rb"-----END (?P=label)-----\s*\Z"
)
_WHAT = "the encrypted private key"


def seal_private_key(der: bytes, password: bytes) -> bytes:
    """Encrypt a PKCS#8 DER private key into the PEM that cosign reads. Takes about 64 MiB and 0.2 s."""
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(SecretBox.NONCE_SIZE)
    key = Scrypt(salt=salt, length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(password)
    try:
        ciphertext = SecretBox(key).encrypt(der, nonce).ciphertext
    finally:
        wipe(key)
    document = {
        "kdf": {
            "name": "scrypt",
            "params": {"N": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P},
            "salt": _encode(salt),
        },
        "cipher": {"name": "nacl/secretbox", "nonce": _encode(nonce)},
        "ciphertext": _encode(ciphertext),
    }
    body = _encode(json.dumps(document, separators=(",", ":")).encode())
    lines = "\n".join(body[start : start + 64] for start in range(0, len(body), 64))
    return f"-----BEGIN {PEM_LABEL}-----\n{lines}\n-----END {PEM_LABEL}-----\n".encode()


def open_private_key(pem: bytes, password: bytes) -> bytes:
    """Decrypt a cosign private key file to PKCS#8 DER, which the caller wipes.

    Raises `KeyLoadError`; takes up to 64 MiB and 0.2 s.
    """
    document = _parse_document(_pem_body(pem))
    try:
        cipher = object_member(document, "cipher", _WHAT)
        if member(cipher, "name", _WHAT) != "nacl/secretbox":
            raise KeyLoadError(
                KeyProblem.UNSUPPORTED, "the private key uses a cipher other than nacl/secretbox"
            )
        nonce = _decode(string_member(cipher, "nonce", _WHAT))
        ciphertext = _decode(string_member(document, "ciphertext", _WHAT))
    except FormatError as error:
        raise KeyLoadError(KeyProblem.CORRUPT, str(error)) from None
    if len(nonce) != SecretBox.NONCE_SIZE or len(ciphertext) < SecretBox.MACBYTES:
        raise KeyLoadError(KeyProblem.CORRUPT, f"{_WHAT} has a nonce or ciphertext of the wrong length")
    key = _derive_key(document, password)
    try:
        return SecretBox(key).decrypt(ciphertext, nonce)
    except CryptoError:
        raise KeyLoadError(
            KeyProblem.WRONG_PASSWORD,
            "the password does not open the private key, or the file was changed; "
            "a password written by hand often carries a line break at its end",
        ) from None
    finally:
        wipe(key)


def _pem_body(pem: bytes) -> bytes:
    if len(pem) > MAX_KEY_FILE_BYTES:
        raise KeyLoadError(
            KeyProblem.CORRUPT, f"the private key file is larger than {MAX_KEY_FILE_BYTES} bytes"
        )
    match = _PEM.match(pem)
    if match is None:
        raise KeyLoadError(KeyProblem.CORRUPT, "the private key is not exactly one PEM block")
    if match["label"].decode() not in {PEM_LABEL, LEGACY_PEM_LABEL}:
        raise KeyLoadError(
            KeyProblem.UNSUPPORTED,
            "the private key is not one of cosign's encrypted keys; convert it with `cosign import-key-pair`",
        )
    try:
        return base64.b64decode(b"".join(match["body"].split()), validate=True)
    except binascii.Error:
        raise KeyLoadError(KeyProblem.CORRUPT, "the private key's PEM block is not base64") from None


def _parse_document(body: bytes) -> dict[str, object]:
    try:
        return parse_strict_json(body, max_bytes=MAX_KEY_FILE_BYTES, what=_WHAT)
    except FormatError as error:
        raise KeyLoadError(KeyProblem.CORRUPT, str(error)) from None


def _derive_key(document: dict[str, object], password: bytes) -> bytes:
    try:
        scrypt = _parse_scrypt(object_member(document, "kdf", _WHAT))
    except FormatError as error:
        raise KeyLoadError(KeyProblem.CORRUPT, str(error)) from None
    return scrypt.derive(password)


def _parse_scrypt(kdf: dict[str, object]) -> Scrypt:
    if member(kdf, "name", _WHAT) != "scrypt":
        raise KeyLoadError(KeyProblem.UNSUPPORTED, "the private key uses a key derivation other than scrypt")
    params = object_member(kdf, "params", _WHAT)
    n, r, p = (_positive_integer(params, name) for name in ("N", "r", "p"))
    if n < 2 or n & (n - 1) != 0:
        raise KeyLoadError(KeyProblem.CORRUPT, "the private key's scrypt parameter N is not a power of two")
    if p != SCRYPT_P or 128 * n * r > MAX_SCRYPT_MEMORY_BYTES:
        raise KeyLoadError(
            KeyProblem.TOO_COSTLY,
            f"the private key asks for scrypt N={n} r={r} p={p}; "
            f"at most {MAX_SCRYPT_MEMORY_BYTES >> 20} MiB and p=1 are allowed",
        )
    salt = _decode(string_member(kdf, "salt", _WHAT))
    if not 0 < len(salt) <= MAX_SALT_BYTES:
        raise KeyLoadError(KeyProblem.CORRUPT, "the private key's salt has the wrong length")
    return Scrypt(salt=salt, length=32, n=n, r=r, p=p)


def _positive_integer(params: dict[str, object], name: str) -> int:
    value = member(params, name, _WHAT)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**63:
        raise KeyLoadError(
            KeyProblem.CORRUPT, f"the private key's scrypt parameter {name} is not a positive integer"
        )
    return value


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise FormatError(f"{_WHAT} has a member that is not base64") from None
