"""Going on with a download where it broke off: RFC 9110, sections 8.8, 13.1.5 and 14. Pure.

Bytes are put behind bytes only where both are of one version of the file: the server must name the version by
a strong validator, and the answer to a range must be of that version, at that place, of that length. In every
other case the file is fetched from its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_CONTENT_RANGE = re.compile(r"^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$", re.ASCII)
_STRONG_ETAG = re.compile(r'^"[\x21\x23-\x7e\x80-\xff]*"$')


@dataclass(frozen=True)
class Part:
    """The part of a file that has arrived; sizes in bytes."""

    received: int = 0
    total: int | None = None
    validator: str = ""
    """What names the version of the file (an entity tag or a date); empty: nothing does."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What asks for the rest, or for everything if the version has changed; empty: ask for everything."""
        if not self.received or not self.validator:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self.validator}

    def continued_by(self, headers: Mapping[str, str]) -> bool:
        """Tell whether an answer with status 206 brings the rest of this very file."""
        match = _CONTENT_RANGE.match(headers.get("Content-Range", "").strip())
        if match is None or not self.headers:
            return False
        first, last, total = int(match[1]), int(match[2]), match[3]
        end = last + 1 if total == "*" else int(total)
        tag = headers.get("ETag", "")
        same_version = not tag or not self.validator.startswith('"') or tag == self.validator
        same_length = self.total is None or self.total == end
        return same_version and same_length and first == self.received and last + 1 == end


def validator_of(headers: Mapping[str, str]) -> str:
    """Give what names the version of a file for certain: a strong entity tag, else a date that is one.

    A date names a version only when the file was older than a second when it was sent: within one second it
    may have been written twice (RFC 9110, 8.8.2.2).
    """
    tag = headers.get("ETag", "")
    if _STRONG_ETAG.match(tag):
        return tag
    modified = headers.get("Last-Modified", "")
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)
    except (TypeError, ValueError, OverflowError):
        return ""
    return modified if age.total_seconds() >= 1 else ""
