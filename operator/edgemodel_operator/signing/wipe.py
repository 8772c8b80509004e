"""Overwrite secrets in memory when they have served."""

from __future__ import annotations

import ctypes


def wipe(secret: bytes | bytearray) -> None:
    """Overwrite a secret with zeros; nobody may use it afterwards.

    Python has no way to wipe a `bytes` object, so this writes to where CPython keeps its content. Pass only
    what was made for one purpose and is referred to from nowhere else: never a constant.
    """
    if isinstance(secret, bytearray):
        secret[:] = bytes(len(secret))
    elif len(secret) > 1:  # the empty one and those of one byte are shared by everybody
        ctypes.memset(ctypes.c_char_p(secret), 0, len(secret))
