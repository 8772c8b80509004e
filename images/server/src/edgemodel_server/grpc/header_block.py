"""Header blocks: HPACK to checked request heads and back.

Source: RFC 7541 (HPACK), RFC 9113 section 8 (which fields a request may have).

A client repeats itself: once its dynamic table has settled, every request of a kind has the same block. So
heads are kept by the exact bytes of their block, until a block moves the dynamic table: from then on the same
bytes may mean something else.
"""

import re
from collections.abc import Iterable

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from edgemodel_server.grpc.frames import ConnectionFault, ErrorCode

_MAX_KEPT = 64
_TABLE_BYTES = 4096
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\0\r\n]|^[ \t]|[ \t]$")
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_REQUIRED = (b":method", b":scheme", b":path")
_CONNECTION_SPECIFIC = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_STATUS_200 = b"\x88"


class MalformedHeadError(ValueError):
    """The fields are no request by RFC 9113, section 8: an error of the stream."""


class Head:
    """The fields of a request, or of its trailers; the first one of each name counts.

    Heads are kept and come again: ``route`` is for whoever wants to keep what a head means to it.
    """

    __slots__ = ("content_length", "fields", "route")

    def __init__(self, fields: dict[bytes, bytes], content_length: int | None = None) -> None:
        self.fields = fields
        self.content_length = content_length
        self.route: object = None

    @property
    def method(self) -> bytes:
        """The HTTP method."""
        return self.fields[b":method"]

    @property
    def path(self) -> bytes:
        """The path, as sent."""
        return self.fields[b":path"]


class HeadReader:
    """Decodes the header blocks of one connection, in their order."""

    def __init__(self, max_head_bytes: int) -> None:
        self._decoder = Decoder(max_head_bytes)
        self._decoder.max_allowed_table_size = _TABLE_BYTES
        self._kept: dict[bytes, Head] = {}

    def recall(self, block: bytes) -> Head | None:
        """Return what a request's block means if that is known by its bytes."""
        return self._kept.get(block)

    def read(self, block: bytes, *, trailers: bool = False) -> Head:
        """Return what a block means.

        Raises ConnectionFault where the block cannot be decoded, for then no later one can be either, and
        MalformedHeadError where it can, but is no request (or, if ``trailers``, no end of one).
        """
        kept = self._kept.get(block)
        if kept is not None and not trailers:
            return kept
        pairs, moved = self._decode(block)
        if moved:
            self._kept.clear()
        if trailers:
            return Head(_check_fields(pairs, frozenset()))
        head = _check_request(_check_fields(pairs, _PSEUDO))
        if not moved and len(self._kept) < _MAX_KEPT:
            self._kept[block] = head
        return head

    def skip(self, block: bytes) -> None:
        """Follow a block that nobody wants, for it may change what the next ones mean."""
        if self._decode(block)[1]:
            self._kept.clear()

    def _decode(self, block: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
        """Return the fields, and whether the dynamic table is another one now."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before = (len(entries), entries[0] if entries else None, table.maxsize)
        try:
            pairs = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            message = f"the header fields are larger than {self._decoder.max_header_list_size} bytes"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message) from None
        except (HPACKError, IndexError, ValueError):  # their texts hold addresses of our memory
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "the header block is no HPACK") from None
        first = entries[0] if entries else None
        return pairs, len(entries) != before[0] or first is not before[1] or table.maxsize != before[2]


def _check_fields(pairs: Iterable[tuple[bytes, bytes]], pseudo: frozenset[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    ordinary = False
    for name, value in pairs:
        if name.startswith(b":"):
            if ordinary or name in fields or name not in pseudo:
                raise MalformedHeadError(f"the field {name!r} is out of place")
        else:
            ordinary = True
            _check_field(name, value)
        if fields.setdefault(name, value) != value and name == b"content-length":
            raise MalformedHeadError("content-length is given twice")
    return fields


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name) or name in _CONNECTION_SPECIFIC:
        raise MalformedHeadError(f"the field {name!r} is not allowed")
    if _BAD_VALUE.search(value) or (name == b"te" and value != b"trailers"):
        raise MalformedHeadError(f"the value of {name!r} is not allowed")


def _check_request(fields: dict[bytes, bytes]) -> Head:
    missing = [name for name in _REQUIRED if not fields.get(name)]
    if missing:
        raise MalformedHeadError(f"a request needs {missing}")
    length = fields.get(b"content-length")
    if length is not None and not (length.isdigit() and len(length) < 19):
        raise MalformedHeadError("content-length is a number of bytes")
    return Head(fields, None if length is None else int(length))


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block of literal fields that are in no table: the same bytes whatever came before."""
    return b"".join(
        _STATUS_200
        if (name, value) == (b":status", b"200")
        else b"\0" + _encode_text(name) + _encode_text(value)
        for name, value in fields
    )


def _encode_text(text: bytes) -> bytes:
    """Return a string literal without Huffman coding (RFC 7541, section 5.2)."""
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    prefix = bytearray((127,))
    length -= 127
    while length >= 128:
        prefix.append(length & 127 | 128)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + text
