"""Write to a registry where others write the same object, without losing anybody's part.

Registries offer no compare-and-swap: of two writers who read the same state, the later one wipes out the
earlier one's part. So each writer looks again, for longer than the others need between their read and their
write, and writes again what has gone missing. Who sees that others are at work stays until they have ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from edgemodel_operator.oci.errors import NotFound, ProtocolError, RegistryError
from edgemodel_operator.signing.errors import SignatureLost

MAX_LOSSES = 24
MAX_ERRORS = 12
"""In a row; beside fifty writers, docker-registry has refused six writes one after the other."""

MAX_PAUSE_S = 4.0
FIRST_PAUSE_S = 0.05
SETTLE_S = 0.3
"""For how long a part must stay before we believe it; longer where this registry took longer to write."""

CONTENDED_SETTLE_S = 1.5
"""The same where others were seen to write: beside many of them, each takes long between read and write."""

LOOKS = 3
MAX_CHANGES = 100
"""By others, while one waits for them to end; whoever never ends is not waited for."""


async def write_until_kept(write: Callable[[], Awaitable[None]], look: Callable[[], Awaitable[str]]) -> None:
    """Repeat `write` until its part stays for a while. Both must be idempotent.

    `look` gives a text that is another one after each change of the object, and none while the part is
    missing. Raises `SignatureLost` when that never happens, and the `RegistryError` of a write that cannot
    succeed.
    """
    loop = asyncio.get_running_loop()
    losses = errors = 0
    while losses < MAX_LOSSES:
        started = loop.time()
        try:
            await write()
            errors = 0
            if await _stays(look, max(SETTLE_S, 2 * (loop.time() - started))):
                return
            losses += 1
        except RegistryError as error:
            errors += 1
            if not _passes(error) or errors >= MAX_ERRORS:
                raise
        # Randomness only spreads the writers; nothing secret depends on it.
        longest_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** (losses + errors))
        await asyncio.sleep(random.uniform(0, longest_s))  # noqa: S311
    raise SignatureLost(f"other writers replaced the signature {MAX_LOSSES} times; try again later")


async def _stays(look: Callable[[], Awaitable[str]], settle_s: float) -> bool:
    state, quiet, changes = await look(), 0, 0
    while state and quiet < LOOKS and changes < MAX_CHANGES:
        await asyncio.sleep(settle_s / LOOKS)
        seen = await look()
        if seen == state:
            quiet += 1
        else:
            settle_s = max(settle_s, CONTENDED_SETTLE_S)
            state, quiet, changes = seen, 0, changes + 1
    return bool(state)


def _passes(error: RegistryError) -> bool:
    # docker-registry calls blobs unknown that it has just taken, while others push to the same repository.
    return error.retryable or isinstance(error, NotFound | ProtocolError)
