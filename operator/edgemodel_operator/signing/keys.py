"""Keys that sign and keys that verify.

Allowed: ECDSA on P-256 and P-384, plain Ed25519, and RSA of 3072 to 8192 bits with PKCS#1 v1.5 padding; the
hash is SHA-256 throughout, because that is what both lines of cosign verify. The algorithm comes from the
key, never from the signature: an attacker cannot choose it.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from typing_extensions import override

from edgemodel_operator.signing.errors import KeyLoadError, KeyProblem
from edgemodel_operator.signing.key_file import open_private_key, seal_private_key
from edgemodel_operator.signing.wipe import wipe

MIN_RSA_BITS = 3072
MAX_RSA_BITS = 8192
MAX_PUBLIC_KEY_BYTES = 16 * 1024

SECRET_PRIVATE_KEY = "cosign.key"  # noqa: S105 - names of fields, not secrets
SECRET_PUBLIC_KEY = "cosign.pub"  # noqa: S105
SECRET_PASSWORD = "cosign.password"  # noqa: S105

_PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
_VerifyingKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_PUBLIC_PEM = re.compile(
    rb"\A\s*-----BEGIN PUBLIC KEY-----\r?\n[A-Za-z0-9+/=\s]*-----END PUBLIC KEY-----\s*\Z"
)


class KeyKind(StrEnum):
    """The algorithms this package signs and verifies with."""

    ECDSA_P256 = "ecdsa-p256-sha256"
    ECDSA_P384 = "ecdsa-p384-sha256"
    ED25519 = "ed25519"
    RSA = "rsa-pkcs1v15-sha256"


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies. Two are equal when their SubjectPublicKeyInfo bytes are."""

    spki: bytes = field(repr=False)
    kind: KeyKind
    _key: _VerifyingKey = field(repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Name the key for people and logs: `sha256:<hex>` of its SubjectPublicKeyInfo DER."""
        return f"sha256:{hashlib.sha256(self.spki).hexdigest()}"

    @property
    def hint(self) -> str:
        """Return what cosign writes as `verificationMaterial.publicKey.hint`. It only ever hints."""
        return base64.b64encode(hashlib.sha256(self.spki).digest()).decode()

    @property
    def pem(self) -> bytes:
        """Return the key as the PEM that `cosign verify --key` reads."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether `signature` is this key's over `message`. Never raises for bad signatures."""
        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            elif isinstance(self._key, rsa.RSAPublicKey):
                self._key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            else:
                self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer(Protocol):
    """What signing needs of a key, wherever it lives: in memory, in a key service, behind a command."""

    @property
    def public_key(self) -> PublicKey:
        """Return the key that verifies what `sign` makes."""
        ...

    async def sign(self, message: bytes) -> bytes:
        """Return the signature over `message`."""
        ...


class LocalKey:
    """A private key held in memory. It shows its fingerprint only, and refuses to be pickled or copied."""

    __slots__ = ("_key", "public_key")

    def __init__(self, key: _PrivateKey) -> None:
        self._key = key
        self.public_key = _public_key(key.public_key())

    async def sign(self, message: bytes) -> bytes:
        """Return the signature over `message`: the same bytes each time, so signing twice adds nothing."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(message)

    @override
    def __repr__(self) -> str:
        return f"LocalKey({self.public_key.kind}, {self.public_key.fingerprint})"

    @override
    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not copied or pickled")


@dataclass(frozen=True)
class KeyPair:
    """A freshly made pair: the private key encrypted under the caller's password, the public key plain."""

    private_pem: bytes = field(repr=False)
    public_pem: bytes


def generate_key_pair(password: bytes, kind: KeyKind = KeyKind.ECDSA_P256) -> KeyPair:
    """Make a pair as `cosign generate-key-pair` does. Takes about 64 MiB and 0.2 s, for RSA some seconds."""
    key = _generate(kind)
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        private_pem = seal_private_key(der, password)
    finally:
        wipe(der)
    return KeyPair(private_pem=private_pem, public_pem=_public_key(key.public_key()).pem)


def _generate(kind: KeyKind) -> _PrivateKey:
    if kind is KeyKind.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if kind is KeyKind.RSA:
        return rsa.generate_private_key(65537, MIN_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1() if kind is KeyKind.ECDSA_P256 else ec.SECP384R1())


def load_private_key(pem: bytes, password: bytes) -> LocalKey:
    """Open one of cosign's encrypted private keys. Raises `KeyLoadError`; takes up to 64 MiB and 0.2 s.

    The decrypted bytes are wiped; what stays is OpenSSL's own copy, which it wipes when the key goes.
    """
    der = open_private_key(pem, password)
    try:
        key = serialization.load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyLoadError(KeyProblem.CORRUPT, "the decrypted private key is not a PKCS#8 key") from None
    finally:
        wipe(der)
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise KeyLoadError(KeyProblem.UNSUPPORTED, "the private key is of a kind that is not allowed here")
    return LocalKey(key)


def load_public_key(pem: bytes) -> PublicKey:
    """Parse a PEM public key. Raises `KeyLoadError` for anything but exactly one key of an allowed kind."""
    if len(pem) > MAX_PUBLIC_KEY_BYTES or _PUBLIC_PEM.match(pem) is None:
        raise KeyLoadError(
            KeyProblem.CORRUPT,
            'the public key is not exactly one PEM block that begins with "-----BEGIN PUBLIC KEY-----"',
        )
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyLoadError(KeyProblem.CORRUPT, "the public key's PEM block holds no usable key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise KeyLoadError(KeyProblem.UNSUPPORTED, "the public key is of a kind that is not allowed here")
    return _public_key(key)


def secret_data(pair: KeyPair, password: bytes) -> dict[str, bytes]:
    """Return the Secret fields that `cosign generate-key-pair k8s://` writes (not yet base64-encoded)."""
    return {
        SECRET_PRIVATE_KEY: pair.private_pem,
        SECRET_PUBLIC_KEY: pair.public_pem,
        SECRET_PASSWORD: password,
    }


def parse_signing_secret(data: Mapping[str, bytes]) -> LocalKey:
    """Load the key of such a Secret from its decoded fields. Raises `KeyLoadError`; 64 MiB and 0.2 s.

    The public half must belong to the private one: what is published to verifiers would else not verify.
    """
    missing = [name for name in (SECRET_PRIVATE_KEY, SECRET_PUBLIC_KEY, SECRET_PASSWORD) if name not in data]
    if missing:
        raise KeyLoadError(
            KeyProblem.MISSING_FIELD,
            f"the signing Secret has no field {' and no field '.join(missing)}; "
            "`cosign generate-key-pair k8s://NAMESPACE/NAME` makes a complete one",
        )
    key = load_private_key(data[SECRET_PRIVATE_KEY], data[SECRET_PASSWORD])
    if load_public_key(data[SECRET_PUBLIC_KEY]) != key.public_key:
        raise KeyLoadError(
            KeyProblem.MISMATCH,
            f"{SECRET_PUBLIC_KEY} of the signing Secret is not the public half of {SECRET_PRIVATE_KEY}",
        )
    return key


def _public_key(key: _VerifyingKey) -> PublicKey:
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(spki=spki, kind=_kind(key), _key=key)


def _kind(key: _VerifyingKey) -> KeyKind:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyKind.ED25519
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise KeyLoadError(
                KeyProblem.UNSUPPORTED,
                f"the RSA key has {key.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are allowed",
            )
        return KeyKind.RSA
    kinds = {"secp256r1": KeyKind.ECDSA_P256, "secp384r1": KeyKind.ECDSA_P384}
    if key.curve.name not in kinds:
        raise KeyLoadError(
            KeyProblem.UNSUPPORTED, f"the key is on curve {key.curve.name}; P-256 and P-384 are allowed"
        )
    return kinds[key.curve.name]
