"""Write to a registry where others write the same object, without losing anybody's part.

Registries offer no compare-and-swap: of two writers who read the same state, the later one wipes out the
earlier one's part. So each writer looks again, for longer than the others need between their read and their
write, and writes again what has gone missing.
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

LOOKS = 3


async def write_until_kept(
    write: Callable[[], Awaitable[None]], is_there: Callable[[], Awaitable[bool]]
) -> None:
    """Repeat `write` until `is_there` holds for a while. Both must be idempotent.

    Raises `SignatureLost` when that never happens, and the `RegistryError` of a write that cannot succeed.
    """
    loop = asyncio.get_running_loop()
    losses = errors = 0
    while losses < MAX_LOSSES:
        started = loop.time()
        try:
            await write()
            errors = 0
            if await _stays(is_there, max(SETTLE_S, 2 * (loop.time() - started))):
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


async def _stays(is_there: Callable[[], Awaitable[bool]], settle_s: float) -> bool:
    for look in range(LOOKS + 1):
        if not await is_there():
            return False
        if look < LOOKS:
            await asyncio.sleep(settle_s / LOOKS)
    return True


def _passes(error: RegistryError) -> bool:
    # docker-registry calls blobs unknown that it has just taken, while others push to the same repository.
    return error.retryable or isinstance(error, NotFound | ProtocolError)
