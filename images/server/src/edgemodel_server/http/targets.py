"""The target of a request: what of it is the path."""


def strip_target(target: bytes) -> str:
    """Return a target's path as it was sent: without a query, and without the host of a whole URL."""
    path = target.partition(b"?")[0].decode("latin-1")
    return path if path.startswith("/") else "/" + path.partition("://")[2].partition("/")[2]
