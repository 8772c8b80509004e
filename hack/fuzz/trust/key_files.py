"""Key files: whatever is done to one, it opens to the key that it holds, or not at all."""

import base64
import json
from collections.abc import Hashable, Sequence
from random import Random

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from nacl.secret import SecretBox

from edgemodel_operator.signing.key_file import LEGACY_PEM_LABEL, PEM_LABEL, open_private_key
from fuzz.trust.oracle import outcome_of, spliced

_PASSWORD = b"fuzz"
_DER = b"0 the private key"
_LINE = "-----BEGIN {0}-----\n{1}\n-----END {0}-----\n"


def _key_file(label: str, n: int, r: int) -> bytes:
    """Seal as cosign does, but with so little work that a million files can be opened."""
    salt, nonce = bytes(32), bytes(SecretBox.NONCE_SIZE)  # the same seeds in every run
    key = Scrypt(salt=salt, length=32, n=n, r=r, p=1).derive(_PASSWORD)
    sealed = SecretBox(key).encrypt(_DER, nonce).ciphertext
    document = {
        "kdf": {"name": "scrypt", "params": {"N": n, "r": r, "p": 1}, "salt": _encode(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _encode(nonce)},
        "ciphertext": _encode(sealed),
    }
    return _LINE.format(label, _encode(json.dumps(document).encode())).encode()


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


class KeyFileTarget:
    """Fuzz the reader of encrypted private keys: the PEM block, and the document in it."""

    name = "key-file"
    seeds: Sequence[bytes] = (_key_file(PEM_LABEL, 2, 1), _key_file(LEGACY_PEM_LABEL, 4, 2))
    words: Sequence[bytes] = (
        b"-----BEGIN ", b"-----END ", b"-----\n", PEM_LABEL.encode(), LEGACY_PEM_LABEL.encode(),
        b"EC PRIVATE KEY", b"\r\n", b"\n", b"=", b"==", b"\0", b" ", b'"N":', b'"r":', b'"p":', b'"kdf":',
        b'"cipher":', b'"ciphertext":', b'"nonce":', b'"salt":', b'"scrypt"', b'"nacl/secretbox"',
        b'"argon2"', b"0", b"1", b"3", b"1073741824", b"-2", b"2.0", b"true", b"null", b"{}", b"[]",
    )  # fmt: skip

    def make(self, random: Random) -> bytes:
        """Return a file whose document was changed: a change in base64 alone hardly ever gets that far."""
        if random.random() < 0.3:
            return spliced(random, self.seeds)
        document = bytearray(base64.b64decode(random.choice(self.seeds).split(b"\n")[1]))
        for _ in range(random.choice((0, 1, 1, 2))):
            start = random.randrange(len(document))
            document[start : start + random.choice((0, 0, 1, 4))] = random.choice(self.words)
        return _LINE.format(PEM_LABEL, _encode(bytes(document))).encode()

    def check(self, data: bytes) -> Hashable:
        """Open the file; return what kind of outcome it was."""

        def read() -> Hashable:
            assert open_private_key(data, _PASSWORD) == _DER
            return "opened"

        return outcome_of(read)
