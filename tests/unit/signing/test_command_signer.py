"""Signing through a command of the site's: what it is given, and what its answers are worth."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from edgemodel_operator.signing.command_signer import MAX_SHOWN, CommandSigner
from edgemodel_operator.signing.errors import KeyLoadError, SignerFailed
from edgemodel_operator.signing.keys import LocalKey, PublicKey

PRIVATE = ec.generate_private_key(ec.SECP256R1())
PUBLIC = LocalKey(PRIVATE).public_key
_ANSWER = """
import base64, sys
from pathlib import Path
given = sys.stdin.buffer.read()
Path(sys.argv[1], "given").write_bytes(given)
sys.stdout.write(Path(sys.argv[1], "answer").read_text())
"""


def answering(folder: Path, answer: bytes | str, key: PublicKey = PUBLIC) -> CommandSigner:
    """Give a signer whose program writes what it is given to a file, and answers with what is in another."""
    folder.joinpath("answer").write_bytes(answer if isinstance(answer, bytes) else answer.encode())
    return CommandSigner([sys.executable, "-c", _ANSWER, str(folder)], key)


def running(script: str, **options: float) -> CommandSigner:
    return CommandSigner(["/bin/sh", "-c", script], PUBLIC, **options)


def base64_of(data: bytes) -> str:
    return base64.encodebytes(data).decode()


async def test_the_program_gets_32_raw_bytes_and_its_answer_is_the_signature(tmp_path: Path) -> None:
    made = PRIVATE.sign(b"message", ec.ECDSA(hashes.SHA256()))
    signer = answering(tmp_path, base64_of(made))
    assert await signer.sign(b"message") == made
    hasher = hashes.Hash(hashes.SHA256())
    hasher.update(b"message")
    assert (tmp_path / "given").read_bytes() == hasher.finalize()


async def test_an_rsa_signature_over_the_digest_is_accepted(tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 3072)
    hasher = hashes.Hash(hashes.SHA256())
    hasher.update(b"message")
    made = private.sign(hasher.finalize(), padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    signer = answering(tmp_path, base64_of(made), LocalKey(private).public_key)
    assert await signer.sign(b"message") == made


@pytest.mark.parametrize("answer", ["", "no base64!", "AAAA", b"\xff\xfe"])
async def test_what_is_no_signature_by_the_key_is_refused(tmp_path: Path, answer: bytes | str) -> None:
    with pytest.raises(SignerFailed):
        await answering(tmp_path, answer).sign(b"message")


async def test_a_signature_over_another_message_is_refused(tmp_path: Path) -> None:
    other = PRIVATE.sign(b"another message", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(SignerFailed, match="does not verify"):
        await answering(tmp_path, base64_of(other)).sign(b"message")


async def test_a_program_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"echo $$ >> {pids}; sleep 1000 & echo $! >> {pids}; sleep 1000"
    with pytest.raises(SignerFailed, match=r"within 0\.5 s"):
        await running(script, time_limit_s=0.5).sign(b"message")
    for pid in pids.read_text().split():
        await gone(int(pid))


async def test_a_child_that_is_left_behind_does_not_outlive_the_signature(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 1000 >/dev/null 2>&1 & echo $! > {pid}; exit 3"
    with pytest.raises(SignerFailed, match="status 3"):
        await running(script).sign(b"message")
    await gone(int(pid.read_text()))


async def test_a_program_that_fled_its_group_holds_up_nobody(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    # It keeps the pipes, in a session of its own: only its own end will close them.
    with pytest.raises(SignerFailed, match=r"within 0\.5 s"):
        await running(f"setsid sleep 1000 & echo $! > {pid}; exit 0", time_limit_s=0.5).sign(b"message")
    os.kill(int(pid.read_text()), signal.SIGKILL)


async def test_a_cancelled_signature_leaves_no_program_behind(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    work = asyncio.create_task(running(f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 1000").sign(b"m"))
    async with asyncio.timeout(10):
        while not pid.exists():
            await asyncio.sleep(0.01)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    await gone(int(pid.read_text()))


@pytest.mark.parametrize("steps", range(12))
async def test_a_signature_that_is_cancelled_while_its_program_starts_ends_too(
    tmp_path: Path, steps: int
) -> None:
    pids = tmp_path / "pids"
    # The one at the pipe's head waits for the digest, and outlives the shell that started it.
    work = asyncio.create_task(running(f"echo $$ > {pids}; sh -c 'echo $$ >> {pids}; cat' | cat").sign(b"m"))
    for _ in range(steps):
        await asyncio.sleep(0)
    started = time.monotonic()
    while steps > 1 and len(pids.read_text().split() if pids.exists() else ()) < 2:
        assert time.monotonic() < started + 10
        time.sleep(0.01)  # noqa: ASYNC251 - the loop must not get on meanwhile
    work.cancel()
    await asyncio.wait({work}, timeout=10)
    assert work.cancelled()
    for pid in pids.read_text().split() if pids.exists() else ():
        await gone(int(pid))


async def gone(pid: int) -> None:
    """Wait until no such process runs any more; a dead one that nobody has asked after does not run."""
    status = Path(f"/proc/{pid}/stat")
    async with asyncio.timeout(10):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while status.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}:
                await asyncio.sleep(0.01)


async def test_an_endless_answer_is_refused_within_bounds() -> None:
    with pytest.raises(SignerFailed, match="more than"):
        await running("head -c 20000000 /dev/zero").sign(b"message")


async def test_of_a_failure_a_bounded_printable_part_is_shown() -> None:
    with pytest.raises(SignerFailed) as caught:
        await running("printf 'the slot is \\033[31mempty\\n' >&2; exit 7").sign(b"message")
    assert str(caught.value).endswith("ended with status 7: the slot is ?[31mempty")
    with pytest.raises(SignerFailed) as caught:
        await running("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1").sign(b"message")
    assert len(str(caught.value)) < MAX_SHOWN + 100


async def test_the_program_never_sees_the_password_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", "marked-secret")
    monkeypatch.setenv("SLOT", "7")
    with pytest.raises(SignerFailed) as caught:
        await running("env >&2; exit 1", time_limit_s=30).sign(b"message")
    assert "marked-secret" not in str(caught.value)
    environment = {"COSIGN_PASSWORD": "marked-secret", "SLOT": "7"}
    signer = CommandSigner(["/usr/bin/env", "sh", "-c", "env >&2; exit 1"], PUBLIC, environment=environment)
    with pytest.raises(SignerFailed, match="SLOT=7") as caught:
        await signer.sign(b"message")
    assert "marked-secret" not in str(caught.value)


async def test_arguments_are_not_shown_and_a_missing_program_is_named() -> None:
    signer = CommandSigner(["/no/such/program", "--pin", "marked-secret"], PUBLIC)
    with pytest.raises(SignerFailed, match="/no/such/program") as caught:
        await signer.sign(b"message")
    assert "marked-secret" not in f"{caught.value} {signer!r}"


async def test_signatures_are_asked_for_one_after_the_other(tmp_path: Path) -> None:
    script = f"mkdir {tmp_path}/busy || exit 9; sleep 0.05; rmdir {tmp_path}/busy; exit 4"
    signer = running(script)
    answers = await asyncio.gather(*(signer.sign(b"m") for _ in range(5)), return_exceptions=True)
    assert [str(one).rpartition(" ")[2] for one in answers] == ["4"] * 5


def test_an_ed25519_key_cannot_be_behind_a_command() -> None:
    public = LocalKey(ed25519.Ed25519PrivateKey.generate()).public_key
    with pytest.raises(KeyLoadError, match="ECDSA or RSA"):
        CommandSigner(["signer"], public)
    with pytest.raises(KeyLoadError, match="empty"):
        CommandSigner([], PUBLIC)


async def test_openssl_behind_a_script_signs_with_every_kind_of_key(tmp_path: Path) -> None:
    kinds = [
        (ec.generate_private_key(ec.SECP256R1()), ""),
        (ec.generate_private_key(ec.SECP384R1()), ""),
        (rsa.generate_private_key(65537, 3072), "-pkeyopt rsa_padding_mode:pkcs1"),
    ]
    for number, (private, option) in enumerate(kinds):
        file = tmp_path / f"{number}.pem"
        file.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        script = tmp_path / f"sign-{number}"
        script.write_text(
            f"#!/bin/sh\nopenssl pkeyutl -sign -inkey {file} -pkeyopt digest:sha256 {option} | base64\n"
        )
        script.chmod(0o700)
        signer = CommandSigner([str(script)], LocalKey(private).public_key, environment=os.environ)
        assert signer.public_key.verifies(await signer.sign(b"message"), b"message")
