"""The messages in the body of a call: each preceded by a compression flag and its length.

Source: "gRPC over HTTP2", Length-Prefixed-Message.
"""

from collections import deque

from edgemodel_server.grpc.status import Code, RpcError

PREFIX_BYTES = 5
_OBJECT_BYTES = 64  # what a message costs besides its bytes, about


class Budget:
    """How many bytes the unfinished messages of one connection may take together."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class MessageReader:
    """Puts the messages of one call together from pieces of its body."""

    def __init__(self, max_message_bytes: int, budget: Budget) -> None:
        self._max_message_bytes = max_message_bytes
        self._budget = budget
        self._held = 0
        self._chunks: list[bytes] = []
        self._size = 0  # bytes in chunks
        self._wanted: int | None = None  # bytes of the message that has begun
        self.complete: deque[bytes] = deque()

    @property
    def amid_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._size) or self._wanted is not None

    def feed(self, chunk: bytes) -> None:
        """Take a piece; messages that it completes are appended to ``complete``. Raises RpcError."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size < (PREFIX_BYTES if self._wanted is None else self._wanted):
            return
        data = b"".join(self._chunks)
        position = 0
        while True:
            if self._wanted is None:
                if len(data) - position < PREFIX_BYTES:
                    break
                self._wanted = self._read_prefix(data[position : position + PREFIX_BYTES])
                position += PREFIX_BYTES
            end = position + self._wanted
            if end > len(data):
                break
            self.complete.append(data[position:end])
            position = end
            self._wanted = None
        rest = data[position:]
        self._chunks = [rest] if rest else []
        self._size = len(rest)

    def _read_prefix(self, data: bytes) -> int:
        size = check_prefix(data, self._max_message_bytes)
        if self._budget.held + size > self._budget.limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"the calls under way on this connection already take {self._budget.held} bytes",
            )
        self._hold(size + _OBJECT_BYTES)
        return size

    def _hold(self, size: int) -> None:
        self._budget.held += size
        self._held += size

    def take(self) -> bytes:
        """Return the oldest complete message."""
        message = self.complete.popleft()
        self._hold(-len(message) - _OBJECT_BYTES)
        return message

    def close(self) -> None:
        """Give back what the budget holds for messages that nobody will take."""
        self._hold(-self._held)


def check_prefix(data: bytes, max_message_bytes: int) -> int:
    """Return the length in a message's prefix; raises RpcError for a message that is not acceptable."""
    if data[0] > 1:
        raise RpcError(Code.INTERNAL, f"the compression flag of a message is {data[0]}, not 0")
    if data[0]:
        raise RpcError(Code.UNIMPLEMENTED, "compressed messages are not supported: send them with identity")
    size = int.from_bytes(data[1:PREFIX_BYTES], "big")
    if size > max_message_bytes:
        raise RpcError(
            Code.RESOURCE_EXHAUSTED, f"the message has {size} bytes, the largest may have {max_message_bytes}"
        )
    return size


def add_prefix(size: int) -> bytes:
    """Return the prefix of a message of ``size`` bytes that is not compressed."""
    return size.to_bytes(PREFIX_BYTES, "big")
