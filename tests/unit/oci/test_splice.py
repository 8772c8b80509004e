"""Content that is put together from stretches of files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.oci.splice import (
    Content,
    Slice,
    Spliced,
    hash_content,
    open_content,
    read_chunks,
    size_of,
    write_content,
)
from support.build import sha256

LETTERS = bytes(range(256))


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("splice") / "letters"
    path.write_bytes(LETTERS)
    return path


stretches = st.tuples(st.integers(0, 200), st.integers(0, 56))
drawn = st.lists(st.one_of(stretches, st.binary(max_size=9)), max_size=9)


def splice(letters: Path, pieces: list[tuple[int, int] | bytes]) -> tuple[Spliced, bytes]:
    made = tuple(piece if isinstance(piece, bytes) else Slice(letters, *piece) for piece in pieces)
    expected = b"".join(
        piece if isinstance(piece, bytes) else LETTERS[piece[0] : piece[0] + piece[1]] for piece in pieces
    )
    return Spliced(made), expected


@given(pieces=drawn)
def test_reading_gives_the_pieces_in_order(letters: Path, pieces: list[tuple[int, int] | bytes]) -> None:
    content, expected = splice(letters, pieces)
    assert b"".join(read_chunks(content)) == expected
    assert size_of(content) == len(expected)
    assert hash_content(content) == (sha256(expected), len(expected))
    with open_content(content) as opened:
        assert opened.read() == expected


@given(pieces=drawn, data=st.data())
def test_a_stretch_is_what_slicing_gives(
    letters: Path, pieces: list[tuple[int, int] | bytes], data: st.DataObject
) -> None:
    content, expected = splice(letters, pieces)
    offset = data.draw(st.integers(0, len(expected)))
    length = data.draw(st.integers(0, len(expected) - offset))
    assert b"".join(read_chunks(content.stretch(offset, length))) == expected[offset : offset + length]
    with pytest.raises(ValueError, match="beyond the end"):
        content.stretch(offset, len(expected) - offset + 1)


@given(sizes=st.lists(st.integers(1, 99), max_size=9))
def test_any_way_of_reading_gives_the_same(letters: Path, sizes: list[int]) -> None:
    content = Spliced((Slice(letters, 10, 100), b"between", Slice(letters, 0, 50)))
    with open_content(content) as opened:
        read = b"".join(opened.read(size) for size in sizes)
        assert read + opened.read() == LETTERS[10:110] + b"between" + LETTERS[:50]


@pytest.mark.parametrize("kind", ["bytes", "path", "slice"])
def test_every_kind_of_content_is_read_and_written(kind: str, letters: Path, tmp_path: Path) -> None:
    kinds: dict[str, Content] = {"bytes": LETTERS, "path": letters, "slice": Slice(letters, 0, 256)}
    content = kinds[kind]
    assert write_content(content, tmp_path / "copy") == (sha256(LETTERS), 256)
    assert (tmp_path / "copy").read_bytes() == LETTERS
    with open_content(content) as opened:
        assert isinstance(opened, io.BufferedIOBase)
        assert opened.read() == LETTERS
    assert size_of(content) == 256


def test_a_file_that_ends_too_early_is_an_error(letters: Path) -> None:
    with pytest.raises(OSError, match="ends before byte 300"):
        list(read_chunks(Spliced((Slice(letters, 200, 100),))))
