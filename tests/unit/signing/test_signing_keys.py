import base64
import contextlib
import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.secret import SecretBox

from edgemodel_operator.signing.errors import KeyLoadError, KeyProblem
from edgemodel_operator.signing.key_file import open_private_key, seal_private_key
from edgemodel_operator.signing.keys import (
    KeyKind,
    KeyPair,
    LocalKey,
    generate_key_pair,
    load_private_key,
    load_public_key,
    parse_signing_secret,
    secret_data,
)
from edgemodel_operator.signing.wipe import wipe

PASSWORD = b"correct horse"


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return generate_key_pair(PASSWORD)


@pytest.fixture(scope="module")
def key(pair: KeyPair) -> LocalKey:
    return load_private_key(pair.private_pem, PASSWORD)


def document_of(pem: bytes) -> dict[str, dict[str, object]]:
    body = b"".join(pem.split(b"-----")[2].split())
    document: dict[str, dict[str, object]] = json.loads(base64.b64decode(body))
    return document


def pem_of(document: object, label: str = "ENCRYPTED SIGSTORE PRIVATE KEY") -> bytes:
    body = base64.b64encode(json.dumps(document).encode()).decode()
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode()


def cheap_key_file(plaintext: bytes, n: int = 16) -> bytes:
    """Seal as cosign does, but with a scrypt so cheap that a test can open thousands."""
    box = SecretBox(Scrypt(salt=b"s" * 32, length=32, n=n, r=8, p=1).derive(PASSWORD))
    return pem_of(
        {
            "kdf": {
                "name": "scrypt",
                "params": {"N": n, "r": 8, "p": 1},
                "salt": base64.b64encode(b"s" * 32).decode(),
            },
            "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(b"n" * 24).decode()},
            "ciphertext": base64.b64encode(box.encrypt(plaintext, b"n" * 24).ciphertext).decode(),
        }
    )


def pkcs8(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


async def test_a_made_key_signs_what_its_public_half_verifies(pair: KeyPair, key: LocalKey) -> None:
    public = load_public_key(pair.public_pem)
    signature = await key.sign(b"message")
    assert public == key.public_key
    assert public.kind is KeyKind.ECDSA_P256
    assert public.verifies(signature, b"message")
    assert not public.verifies(signature, b"another message")


async def test_signing_the_same_bytes_twice_gives_the_same_signature(key: LocalKey) -> None:
    assert await key.sign(b"message") == await key.sign(b"message")


def test_the_key_file_has_the_parameters_of_cosign(pair: KeyPair) -> None:
    document = document_of(pair.private_pem)
    assert document["kdf"]["params"] == {"N": 65536, "r": 8, "p": 1}
    assert document["cipher"]["name"] == "nacl/secretbox"
    assert pair.private_pem.startswith(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")


def test_case_14_the_older_pem_header_still_loads(pair: KeyPair, key: LocalKey) -> None:
    older = pair.private_pem.replace(b"SIGSTORE", b"COSIGN")
    assert load_private_key(older, PASSWORD).public_key == key.public_key


async def test_case_01_broken_signatures_never_verify(key: LocalKey) -> None:
    good = await key.sign(b"message")
    other = LocalKey(ec.generate_private_key(ec.SECP256R1()))
    bad = [b"", b"garbage", good[:-1], good + b"\0", good[:1], b"\x30\x06\x02\x01\0\x02\x01\0"]
    assert not any(key.public_key.verifies(signature, b"message") for signature in bad)
    assert not other.public_key.verifies(good, b"message")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: ec.generate_private_key(ec.SECP384R1()), KeyKind.ECDSA_P384),
        (ed25519.Ed25519PrivateKey.generate, KeyKind.ED25519),
        (lambda: rsa.generate_private_key(65537, 3072), KeyKind.RSA),
    ],
)
async def test_case_14_other_allowed_kinds_load_and_sign(
    make: Callable[[], ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey],
    kind: KeyKind,
) -> None:
    key = load_private_key(cheap_key_file(pkcs8(make())), PASSWORD)
    public = load_public_key(key.public_key.pem)
    assert public.kind is kind
    assert public.verifies(await key.sign(b"message"), b"message")


@pytest.mark.parametrize("kind", KeyKind)
async def test_pairs_of_every_allowed_kind_are_made(kind: KeyKind) -> None:
    made = generate_key_pair(PASSWORD, kind)
    key, public = load_private_key(made.private_pem, PASSWORD), load_public_key(made.public_pem)
    assert public.kind is kind
    assert public.verifies(await key.sign(b"message"), b"message")


def test_case_14_rsa_pss_and_sha384_signatures_are_refused() -> None:
    rsa_key, p384 = rsa.generate_private_key(65537, 3072), ec.generate_private_key(ec.SECP384R1())
    pss = rsa_key.sign(b"m", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    sha384 = p384.sign(b"m", ec.ECDSA(hashes.SHA384()))
    assert not LocalKey(rsa_key).public_key.verifies(pss, b"m")
    assert not LocalKey(p384).public_key.verifies(sha384, b"m")


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
    ],
)
def test_case_14_weak_and_foreign_kinds_are_refused(
    make: Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey],
) -> None:
    made = make()
    public = made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for load in (
        lambda: load_private_key(cheap_key_file(pkcs8(made)), PASSWORD),
        lambda: load_public_key(public),
    ):
        with pytest.raises(KeyLoadError) as caught:
            load()
        assert caught.value.problem is KeyProblem.UNSUPPORTED


@pytest.mark.parametrize(
    ("n", "r", "p"), [(2**30, 8, 1), (65536, 16, 1), (65536, 8, 2), (2, 2**40, 1), (2**17, 8, 1)]
)
def test_case_14_a_key_file_that_asks_for_too_much_memory_is_refused(n: int, r: int, p: int) -> None:
    document = document_of(cheap_key_file(b"plaintext"))
    document["kdf"]["params"] = {"N": n, "r": r, "p": p}
    with pytest.raises(KeyLoadError) as caught:
        open_private_key(pem_of(document), PASSWORD)
    assert caught.value.problem is KeyProblem.TOO_COSTLY


@pytest.mark.parametrize("n", [0, -1, 1, 3, True, "16", 1.5, None, 2**70])
def test_scrypt_parameters_that_are_no_parameters_are_refused(n: object) -> None:
    document = document_of(cheap_key_file(b"plaintext"))
    document["kdf"]["params"] = {"N": n, "r": 8, "p": 1}
    with pytest.raises(KeyLoadError) as caught:
        open_private_key(pem_of(document), PASSWORD)
    assert caught.value.problem is KeyProblem.CORRUPT


def test_case_14_a_wrong_password_is_named_as_such(pair: KeyPair) -> None:
    with pytest.raises(KeyLoadError) as caught:
        load_private_key(pair.private_pem, PASSWORD + b"\n")
    assert caught.value.problem is KeyProblem.WRONG_PASSWORD
    assert "line break" in str(caught.value)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        pem_of({}).replace(b"e30=", b"!!"),
        pem_of({}),
        b"x" * 70_000,
        pem_of([]),
        cheap_key_file(b"x") + cheap_key_file(b"x"),
    ],
)
def test_a_damaged_key_file_is_refused(pem: bytes) -> None:
    with pytest.raises(KeyLoadError) as caught:
        load_private_key(pem, PASSWORD)
    assert caught.value.problem is KeyProblem.CORRUPT


def test_a_plain_private_key_is_refused_with_the_way_to_convert_it() -> None:
    plain = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(KeyLoadError, match="import-key-pair"):
        load_private_key(plain, PASSWORD)


def test_sealed_plaintext_that_is_no_key_is_refused() -> None:
    with pytest.raises(KeyLoadError, match="not a PKCS#8 key"):
        load_private_key(cheap_key_file(b"no key"), PASSWORD)


def test_only_exactly_one_public_key_loads(pair: KeyPair) -> None:
    for pem in (
        b"",
        pair.public_pem * 2,
        pair.private_pem,
        pair.public_pem.replace(b"PUBLIC KEY", b"CERTIFICATE"),
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ):
        with pytest.raises(KeyLoadError):
            load_public_key(pem)


def test_the_signing_secret_round_trips(pair: KeyPair, key: LocalKey) -> None:
    data = secret_data(pair, PASSWORD)
    assert sorted(data) == ["cosign.key", "cosign.password", "cosign.pub"]
    assert parse_signing_secret(data).public_key == key.public_key


@pytest.mark.parametrize("name", ["cosign.key", "cosign.pub", "cosign.password"])
def test_a_missing_field_of_the_secret_is_named(pair: KeyPair, name: str) -> None:
    data = secret_data(pair, PASSWORD)
    del data[name]
    with pytest.raises(KeyLoadError, match=name.replace(".", r"\.")) as caught:
        parse_signing_secret(data)
    assert caught.value.problem is KeyProblem.MISSING_FIELD


def test_a_public_key_of_another_pair_is_refused(pair: KeyPair) -> None:
    foreign = LocalKey(ec.generate_private_key(ec.SECP256R1())).public_key.pem
    with pytest.raises(KeyLoadError) as caught:
        parse_signing_secret(secret_data(pair, PASSWORD) | {"cosign.pub": foreign})
    assert caught.value.problem is KeyProblem.MISMATCH


def test_no_secret_shows_in_texts_and_private_keys_do_not_travel(pair: KeyPair, key: LocalKey) -> None:
    der = open_private_key(pair.private_pem, PASSWORD)
    with pytest.raises(KeyLoadError) as caught:
        parse_signing_secret(secret_data(pair, b"marked-password"))
    shown = f"{key!r} {key} {pair!r} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    for secret in (b"marked-password", PASSWORD, der[-16:], pair.private_pem[80:120]):
        assert secret.decode("latin-1") not in shown
    for travel in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            travel(key)


_SCAN = """
import sys
from pathlib import Path
from edgemodel_operator.signing.keys import load_private_key

def copies(masked):
    found = 0
    with open("/proc/self/maps") as areas, open("/proc/self/mem", "rb") as memory:
        for area in areas:
            where, rights, *_ = area.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(address, 16) for address in where.split("-"))
            memory.seek(start)
            content = memory.read(end - start)
            wanted = bytes(255 - byte for byte in masked)
            found += content.count(wanted)
            del content, wanted
    return found

masked = bytes.fromhex(sys.argv[2])
key = load_private_key(Path(sys.argv[1]).read_bytes(), sys.argv[3].encode())
print(copies(masked))
left_behind = bytes(255 - byte for byte in masked)
print(copies(masked))
"""
"""Looks through the memory of its own process for the number that is the private key, given masked."""


def test_no_copy_of_a_decrypted_key_stays_in_memory(pair: KeyPair, tmp_path: Path) -> None:
    key = serialization.load_der_private_key(open_private_key(pair.private_pem, PASSWORD), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value.to_bytes(32, "big")
    (tmp_path / "cosign.key").write_bytes(pair.private_pem)
    masked = bytes(255 - byte for byte in number).hex()
    command = [sys.executable, "-c", _SCAN, str(tmp_path / "cosign.key"), masked, PASSWORD.decode()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after_loading, after_leaving_one = (int(line) for line in done.stdout.split())
    assert after_loading == 0
    assert after_leaving_one > 0


def test_wiping_leaves_only_zeros() -> None:
    for secret in (bytes(range(1, 40)), bytearray(range(1, 40)), b"", bytearray()):
        length = len(secret)
        wipe(secret)
        assert bytes(secret) == bytes(length)


def test_sealing_the_same_key_twice_gives_different_files() -> None:
    assert seal_private_key(b"plaintext", PASSWORD) != seal_private_key(b"plaintext", PASSWORD)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutated_key_file_opens_to_the_same_plaintext_or_not_at_all(data: st.DataObject) -> None:
    pem = bytearray(cheap_key_file(b"plaintext"))
    for _ in range(data.draw(st.integers(1, 4))):
        pem[data.draw(st.integers(0, len(pem) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(KeyLoadError):
        assert open_private_key(bytes(pem), PASSWORD) == b"plaintext"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    path=st.sampled_from(
        [
            "kdf",
            "kdf/name",
            "kdf/params",
            "kdf/params/N",
            "kdf/salt",
            "cipher",
            "cipher/name",
            "cipher/nonce",
            "ciphertext",
        ]
    ),
    value=_JSON,
)
def test_any_json_in_any_place_of_a_key_file_is_refused_cleanly(path: str, value: object) -> None:
    document: dict[str, object] = json.loads(json.dumps(document_of(cheap_key_file(b"plaintext"))))
    *parents, last = path.split("/")
    inner = document
    for parent in parents:
        inner = inner[parent]  # type: ignore[assignment]
    inner[last] = value
    with contextlib.suppress(KeyLoadError):
        assert open_private_key(pem_of(document), PASSWORD) == b"plaintext"
