"""What the operator and `edgemodel-signer` agree on. Both sides take it from here."""

from __future__ import annotations

from enum import StrEnum

AUDIENCE = "edgemodel-signer"
"""For whom the token of the operator is made: one for the API server, or for others, proves nothing here."""

SIGN_PATH = "/v1/sign"
"""POST, with the message as body and the fingerprint of the key as `key` in the query.

200: `{"key": FINGERPRINT, "signature": BASE64}`. Else: `{"reason": …, "message": …}`.
"""
KEYS_PATH = "/v1/keys"
"""GET. 200: `{"keys": [{"key": FINGERPRINT, "pem": PEM}, …]}`."""

MAX_MESSAGE_BYTES = 20 * 1024 * 1024


class KeyTroubleReason(StrEnum):
    """Why a signing key cannot be used until a person mends it; also the reason of the condition `Signed`."""

    NOT_FOUND = "SigningKeyNotFound"
    INVALID = "SigningKeyInvalid"
