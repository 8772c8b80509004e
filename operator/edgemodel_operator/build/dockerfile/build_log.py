"""What a builder prints: without secrets, bounded, and the end of it kept for the sentence of a failure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping

HIDDEN = "***"
MAX_LINE = 1000
_MAX_PENDING = 64 * 1024
_KEPT_LINES = 12
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(?<=://)[^\s/@]+@")
_BOOKKEEPING = re.compile(r"---> |Removing intermediate container |Step \d+/\d+ :")
"""Lines of an engine that say nothing to whoever asks why a build failed."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class BuildLog:
    """Passes on what a builder prints, line by line.

    The values of arguments whose names speak of secrets (PASS, SECRET, TOKEN, KEY, CREDENTIAL, AUTH) are
    replaced by `***` wherever they come, and so are logins in URLs.
    """

    def __init__(self, arguments: Mapping[str, str], on_line: Callable[[str], None]) -> None:
        secret = [value for name, value in arguments.items() if _SECRET_NAME.search(name)]
        values = {line.strip() for value in secret for line in (value, *value.splitlines())} - {""}
        # The longest first: one value may be the beginning of another.
        self._secrets = sorted(values, key=len, reverse=True)
        self._on_line = on_line
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self._rest = ""

    def feed(self, text: str) -> None:
        """Take some output; it may begin and end within a line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._pass_on(line)
        if len(self._rest) > _MAX_PENDING:
            self.end_line()

    def end_line(self) -> None:
        """Pass on a line that has no end yet."""
        rest, self._rest = self._rest, ""
        self._pass_on(rest)

    def hide(self, text: str) -> str:
        """Give the text without secrets and control characters."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _CONTROL.sub("", _URL_LOGIN.sub(f"{HIDDEN}@", text))

    @property
    def last_lines(self) -> str:
        """The last lines, joined by ` | `."""
        return " | ".join(self._last)

    def _pass_on(self, line: str) -> None:
        shown = self.hide(line.rpartition("\r")[2] or line).strip()
        if len(shown) > MAX_LINE:  # what went wrong stands at the end, and what it was about at the beginning
            shown = f"{shown[: MAX_LINE // 2]} … {shown[-MAX_LINE // 2 :]}"
        if shown:
            if not _BOOKKEEPING.match(shown):
                self._last.append(shown)
            self._on_line(shown)
