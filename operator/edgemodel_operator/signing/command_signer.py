"""A signer behind a command: a key in a hardware module or a key service, reached by a program of the site's.

The protocol, for one signature: the program gets the SHA-256 of the message on standard input, as 32 raw
bytes and then the end of the input; it writes the signature as base64 to standard output, in which white
space does not count, and exits with 0. ECDSA signatures are DER, RSA ones PKCS#1 v1.5 with SHA-256. It is run
again for every signature, one run at a time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import os
import signal
from collections.abc import Mapping, Sequence

from typing_extensions import override

from edgemodel_operator.signing.errors import KeyLoadError, KeyProblem, SignerFailed
from edgemodel_operator.signing.keys import KeyKind, PublicKey

TIME_LIMIT_S = 30.0
MAX_ANSWER_BYTES = 16 * 1024
MAX_SHOWN = 400
"""Of what a failing program writes to standard error, so many characters are shown."""

PASSWORD_VARIABLE = "COSIGN_PASSWORD"  # noqa: S105 - the name of a variable
"""The only secret that we may have in our environment. A program of somebody else's does not get it."""


class CommandSigner:
    """Signs by running a program. Its answer counts only if the public key verifies it."""

    def __init__(
        self,
        argv: Sequence[str],
        public_key: PublicKey,
        *,
        time_limit_s: float = TIME_LIMIT_S,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Run `argv`, without a shell, for each signature. Raises KeyLoadError for a key it cannot hold."""
        if public_key.kind is KeyKind.ED25519:
            raise KeyLoadError(
                KeyProblem.UNSUPPORTED,
                "a signer command gets the digest of a message, and Ed25519 signs the message itself: "
                "use an ECDSA or RSA key behind a command",
            )
        if not argv:
            raise KeyLoadError(KeyProblem.UNSUPPORTED, "the signer command is empty: name a program")
        self.public_key = public_key
        self._argv = tuple(argv)
        self._time_limit_s = time_limit_s
        self._environment = {name: value for name, value in environment.items() if name != PASSWORD_VARIABLE}
        self._turn = asyncio.Lock()

    async def sign(self, message: bytes) -> bytes:
        """Return the signature over `message`. Raises SignerFailed."""
        async with self._turn:
            answer = await self._ask(hashlib.sha256(message).digest())
        try:
            signature = base64.b64decode(b"".join(answer.split()), validate=True)
        except binascii.Error:
            raise self._failed("wrote something else than a signature in base64") from None
        if not self.public_key.verifies(signature, message):
            why = "answered with something that the public key does not verify: is it the key's other half?"
            raise self._failed(why)
        return signature

    async def _ask(self, digest: bytes) -> bytes:
        starting = asyncio.ensure_future(self._start())
        try:
            async with asyncio.timeout(self._time_limit_s):
                # Shielded: of a start that is broken off asyncio kills the program alone, and then waits for
                # ever for those whom the program has started, who wait for the digest.
                transport, conversation = await asyncio.shield(starting)
                conversation.say(digest)
                await conversation.ended.wait()
        except TimeoutError:
            why = f"did not answer within {self._time_limit_s:g} s and was stopped"
            raise self._failed(why) from None
        finally:
            await asyncio.shield(_stop(starting))
        return self._answer(transport.get_returncode(), conversation)

    async def _start(self) -> _Started:
        try:
            return await asyncio.get_running_loop().subprocess_exec(
                _Conversation, *self._argv, env=self._environment, process_group=0
            )
        except (OSError, ValueError) as error:
            raise self._failed(f"cannot be started: {error.__class__.__name__}") from error

    def _answer(self, status: int | None, conversation: _Conversation) -> bytes:
        if status != 0:
            raise self._failed(f"ended with status {status}{_shown(bytes(conversation.said))}")
        if len(conversation.answer) > MAX_ANSWER_BYTES:
            raise self._failed(f"wrote more than {MAX_ANSWER_BYTES} bytes")
        return bytes(conversation.answer)

    def _failed(self, why: str) -> SignerFailed:
        # The program's name alone: among its arguments there may be a PIN.
        return SignerFailed(f"the signer command {self._argv[0]} {why}")

    @override
    def __repr__(self) -> str:
        return f"CommandSigner({self._argv[0]!r}, {self.public_key.fingerprint})"


class _Conversation(asyncio.SubprocessProtocol):
    """What a program is told and says. It is read to the end, and only so much of it is kept."""

    def __init__(self) -> None:
        self.answer = bytearray()
        self.said = bytearray()
        self.ended = asyncio.Event()
        """Set when the program has ended and all its pipes are closed."""
        self._stdin: asyncio.WriteTransport | None = None

    def say(self, message: bytes) -> None:
        """Write to standard input and end it; a program that reads nothing is no error."""
        if self._stdin is not None:
            self._stdin.write(message)
            self._stdin.close()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - for the type checker
        stdin = transport.get_pipe_transport(0)
        self._stdin = stdin if isinstance(stdin, asyncio.WriteTransport) else None

    @override
    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept, most = (self.answer, MAX_ANSWER_BYTES) if fd == 1 else (self.said, MAX_SHOWN)
        kept += data[: most + 1 - len(kept)]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


_Started = tuple[asyncio.SubprocessTransport, _Conversation]


async def _stop(starting: asyncio.Future[_Started]) -> None:
    """End a program with all that it started, as soon as it has started, and wait until it has gone."""
    try:
        transport, conversation = await starting
    except SignerFailed:  # there is none; whoever started it says so
        return
    # The group, also after a good end: a program may have left others behind.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    transport.close()  # who fled the group may hold the pipes' other ends: that is not waited for
    await conversation.ended.wait()


def _shown(said: bytes) -> str:
    text = " ".join(said.decode(errors="replace").split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f": {printable[:MAX_SHOWN]}" if printable else ""
