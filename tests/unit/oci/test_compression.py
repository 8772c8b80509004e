"""Compressors: output that others can read, and that depends on nothing but the input."""

from __future__ import annotations

import gzip
import os
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.oci.compression import FEED_BYTES, GZIP, ZSTD, Compressor, EvenSteps, Gzip, Zstd

CONTENT = bytes(range(256)) * 2000 + os.urandom(1) * 300_000
BOTH = pytest.mark.parametrize("compressor", [ZSTD, GZIP], ids=lambda compressor: compressor.id)


def compress(compressor: Compressor, pieces: list[bytes]) -> bytes:
    steps = EvenSteps(compressor)
    return b"".join([*(out for piece in pieces for out in steps.compress(piece)), *steps.flush()])


def decompress(compressor: Compressor, blob: bytes) -> bytes:
    if isinstance(compressor, Gzip):
        return gzip.decompress(blob)
    return zstandard.ZstdDecompressor().decompressobj().decompress(blob)


@BOTH
@given(cuts=st.lists(st.integers(0, 3 * FEED_BYTES), max_size=5))
def test_how_the_input_is_cut_leaves_no_trace(compressor: Compressor, cuts: list[int]) -> None:
    pieces, start = [], 0
    for cut in [*cuts, len(CONTENT)]:
        pieces.append(CONTENT[start : start + cut])
        start += cut
    blob = compress(compressor, pieces)
    assert blob == compress(compressor, [CONTENT])
    assert decompress(compressor, blob) == CONTENT


@BOTH
def test_nothing_is_something_too(compressor: Compressor) -> None:
    assert decompress(compressor, compress(compressor, [])) == b""


def test_the_gzip_header_holds_no_time_no_name_and_no_system() -> None:
    assert compress(GZIP, [b"x"])[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@pytest.mark.parametrize("damage", [0, -1, -5])
def test_damage_is_noticed_by_the_checksum(damage: int) -> None:
    blob = bytearray(compress(GZIP, [CONTENT]))
    blob[damage] ^= 1
    with pytest.raises((gzip.BadGzipFile, zlib.error, EOFError)):
        gzip.decompress(bytes(blob))


def test_level_and_library_are_part_of_the_name() -> None:
    assert Zstd(3).id != Zstd(19).id
    assert Zstd().id.endswith(".".join(map(str, zstandard.ZSTD_VERSION)))
    assert Gzip().id == f"gzip-6/zlib-{zlib.ZLIB_RUNTIME_VERSION}"
