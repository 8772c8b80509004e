"""The keys that sign: one reading of a Secret each time, one unsealing for each content, named troubles."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.signer_protocol import KeyTroubleReason
from edgemodel_operator.signer import keyring
from edgemodel_operator.signer.keyring import KeyRing, KeyTrouble, UnknownKey
from edgemodel_operator.signing.key_file import seal_private_key
from edgemodel_operator.signing.keys import LocalKey, generate_key_pair, load_public_key, secret_data

PASSWORD = b"correct horse battery staple"
MARK = b"c29tZSBrZXkgYnl0ZXM"
"""Stands where secrets stand: it must show up nowhere."""


def fresh_secret(password: bytes = PASSWORD) -> dict[str, bytes]:
    return secret_data(generate_key_pair(password), password)


CURRENT, PREVIOUS = fresh_secret(), fresh_secret()


def fingerprint(secret: Mapping[str, bytes]) -> str:
    return load_public_key(secret["cosign.pub"]).fingerprint


class Secrets:
    """The Secrets of a namespace."""

    def __init__(self, **secrets: Mapping[str, bytes]) -> None:
        self.secrets: dict[str, Mapping[str, bytes]] = secrets
        self.down = False
        self.lent: dict[str, bytes] | None = None

    async def read(self, name: str) -> Mapping[str, bytes] | None:
        if self.down:
            raise KubeError(0, "the API server does not answer")
        found = self.secrets.get(name)
        # Made for this call, as the API client does: what is handed out is overwritten.
        self.lent = (
            None if found is None else {field: bytes(bytearray(value)) for field, value in found.items()}
        )
        return self.lent

    def ring(self, *names: str) -> KeyRing:
        return KeyRing(self.read, "edgemodel-system", names or ("current",))


async def trouble_of(ring: KeyRing) -> KeyTrouble:
    with pytest.raises(KeyTrouble) as raised:
        await ring.keys()
    return raised.value


async def test_every_secret_gives_a_key_in_the_order_of_the_names() -> None:
    ring = Secrets(previous=PREVIOUS, current=CURRENT).ring("current", "previous")
    keys = await ring.keys()
    assert [key.public_key.fingerprint for key in keys] == [fingerprint(CURRENT), fingerprint(PREVIOUS)]
    for secret in (CURRENT, PREVIOUS):
        key = await ring.key(fingerprint(secret))
        assert key.public_key.verifies(await key.sign(b"message"), b"message")


async def test_a_key_outside_of_all_secrets_signs_as_well() -> None:
    outside = LocalKey(ec.generate_private_key(ec.SECP256R1()))
    ring = KeyRing(Secrets(current=CURRENT).read, "edgemodel-system", ["current"], [outside])
    assert {key.public_key.fingerprint for key in await ring.keys()} == {
        outside.public_key.fingerprint,
        fingerprint(CURRENT),
    }


async def test_each_content_is_unsealed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def parse(data: Mapping[str, bytes]) -> LocalKey:
        opened.append({field: bytes(bytearray(value)) for field, value in data.items()})
        return real(data)

    real = keyring.parse_signing_secret
    monkeypatch.setattr(keyring, "parse_signing_secret", parse)
    secrets = Secrets(current=CURRENT)
    ring = secrets.ring()
    await asyncio.gather(*(ring.keys() for _ in range(20)))
    assert opened == [CURRENT]

    wrong = {**CURRENT, "cosign.password": b"wrong"}
    secrets.secrets["current"] = wrong
    for _ in range(3):
        await trouble_of(ring)
    secrets.secrets["current"] = CURRENT
    await ring.keys()
    assert opened == [CURRENT, wrong, CURRENT]


@pytest.mark.parametrize("password", [PASSWORD, b"wrong"])
async def test_what_was_read_is_overwritten_when_it_has_served(password: bytes) -> None:
    secrets = Secrets(current={**CURRENT, "cosign.password": password})
    for _ in range(2):
        with contextlib.suppress(KeyTrouble):
            await secrets.ring().keys()
        assert secrets.lent is not None
        assert all(field == bytes(len(field)) for field in secrets.lent.values())


async def test_a_request_that_is_given_up_half_way_spoils_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()

    def parse(data: Mapping[str, bytes]) -> LocalKey:
        began.set()
        assert go_on.wait(10)
        return real(data)

    real = keyring.parse_signing_secret
    monkeypatch.setattr(keyring, "parse_signing_secret", parse)
    ring = Secrets(current=CURRENT).ring()
    asking = asyncio.create_task(ring.keys())
    assert await asyncio.to_thread(began.wait, 10)
    asking.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (key,) = await ring.keys()
    assert key.public_key.fingerprint == fingerprint(CURRENT)


async def test_a_key_whose_secret_is_gone_signs_no_more() -> None:
    secrets = Secrets(current=CURRENT)
    ring = secrets.ring()
    await ring.keys()
    secrets.secrets["current"] = PREVIOUS
    with pytest.raises(UnknownKey):
        await ring.key(fingerprint(CURRENT))
    del secrets.secrets["current"]
    with pytest.raises(KeyTrouble):
        await ring.key(fingerprint(PREVIOUS))


async def test_an_api_server_that_is_away_is_no_trouble_of_the_key() -> None:
    secrets = Secrets(current=CURRENT)
    ring = secrets.ring()
    await ring.keys()
    secrets.down = True
    with pytest.raises(KubeError):
        await ring.keys()
    secrets.down = False
    assert await ring.keys()


async def test_a_key_signs_although_another_one_is_in_trouble() -> None:
    ring = Secrets(current=CURRENT).ring("previous", "current")
    assert (await ring.key(fingerprint(CURRENT))).public_key.fingerprint == fingerprint(CURRENT)
    assert "edgemodel-system/previous" in str(await trouble_of(ring))


def other_kind() -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP521R1())
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {**CURRENT, "cosign.key": seal_private_key(der, PASSWORD)}


@pytest.mark.parametrize(
    ("secret", "reason", "problem", "says"),
    [
        (None, KeyTroubleReason.NOT_FOUND, "Missing", "edgemodel keygen"),
        ({}, KeyTroubleReason.INVALID, "MissingField", "cosign.key"),
        ({"cosign.key": MARK}, KeyTroubleReason.INVALID, "MissingField", "cosign.password"),
        ({**CURRENT, "cosign.password": MARK}, KeyTroubleReason.INVALID, "WrongPassword", "line break"),
        ({**CURRENT, "cosign.key": MARK}, KeyTroubleReason.INVALID, "Corrupt", "PEM"),
        ({**CURRENT, "cosign.key": CURRENT["cosign.key"][:-80]}, KeyTroubleReason.INVALID, "Corrupt", "PEM"),
        (
            {**CURRENT, "cosign.pub": PREVIOUS["cosign.pub"]},
            KeyTroubleReason.INVALID,
            "Mismatch",
            "cosign.pub",
        ),
        (other_kind(), KeyTroubleReason.INVALID, "Unsupported", "P-256"),
    ],
    ids=["missing", "empty", "no password", "wrong password", "no key", "cut off", "mismatch", "P-521"],
)
async def test_case_68_key_trouble_is_a_sentence_without_a_part_of_the_key(
    secret: dict[str, bytes] | None, reason: str, problem: str, says: str
) -> None:
    ring = Secrets(**({} if secret is None else {"current": secret})).ring()
    for _ in range(2):
        raised = await trouble_of(ring)
        assert (raised.trouble.reason, raised.trouble.problem) == (reason, problem)
        text = str(raised)
        assert says in text
        assert "edgemodel-system/current" in text
        for hidden in (MARK, PASSWORD, CURRENT["cosign.key"][60:100]):
            assert hidden.decode() not in text
