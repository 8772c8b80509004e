"""The content of a blob on its way out: ranges, openings of the source, sources that lie about their size."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.oci.bodies import BlobSource, Outgoing
from edgemodel_operator.oci.errors import DigestMismatch, RegistryError, TooLarge

CONTENT = bytes(range(100))


def in_pieces(content: bytes, size: int, opened: list[int]) -> BlobSource:
    async def read(offset: int) -> AsyncGenerator[bytes, None]:
        opened.append(offset)
        yield b""
        for start in range(offset, len(content), size):
            yield content[start : start + size]

    return read


async def take(outgoing: Outgoing, first: int, size: int) -> bytes:
    return b"".join([piece async for piece in outgoing.read(first, size)])


@given(piece=st.integers(1, 120), chunk=st.integers(1, 120))
async def test_ranges_in_order_are_the_content_from_one_opening(piece: int, chunk: int) -> None:
    opened: list[int] = []
    outgoing = Outgoing(in_pieces(CONTENT, piece, opened), len(CONTENT))
    ranges = [(first, min(chunk, 100 - first)) for first in range(0, 100, chunk)]
    assert b"".join([await take(outgoing, *span) for span in ranges]) == CONTENT
    assert opened == [0]
    await outgoing.close()


async def test_going_back_opens_the_source_again() -> None:
    opened: list[int] = []
    outgoing = Outgoing(in_pieces(CONTENT, 7, opened), len(CONTENT))
    await take(outgoing, 0, 50)
    assert await take(outgoing, 20, 80) == CONTENT[20:]
    assert opened == [0, 20]


@pytest.mark.parametrize(
    ("content", "error"),
    [(CONTENT[:-1], DigestMismatch), (CONTENT + b"x", TooLarge)],
    ids=["too short", "too long"],
)
@pytest.mark.parametrize("piece", [1, 33, 1000])
async def test_a_source_of_another_size_never_gets_through_whole(
    content: bytes, error: type[RegistryError], piece: int
) -> None:
    outgoing = Outgoing(in_pieces(content, piece, []), len(CONTENT))
    sent = bytearray()

    async def send() -> None:
        async for part in outgoing.read(0, len(CONTENT)):
            sent.extend(part)

    with pytest.raises(error):
        await send()
    assert isinstance(outgoing.failure, error)
    assert len(sent) < len(CONTENT)
