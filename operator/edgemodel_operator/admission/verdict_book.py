"""Which images were found trusted, when, and by whose word: pure, bounded, and written as one small document.

Only hashes are kept. A *group* is what was demanded: what a policy asks and the keys that it named at that
time. So a change of either leaves its old verdicts without a use. An *entry* is one image under one group.

Between replicas entries are merged: for each image the later verdict wins. That needs a memory of the
opposite, too: an image that was found untrusted after it was trusted stays in the book as refuted, else the
copy of another replica would bring the old verdict back.

The document is JSON (times in minutes since 1970, `by` an index into the group's list, -1: refuted):

    {"version": 1, "groups": {"<sha256, hex>": {"by": [["operator=sha256:…"]],
                                                "entries": {"<hash, base64url>": [verified, used, by]}}}}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

VERSION = 1
MAX_ENTRIES = 8192
MAX_BYTES = 512 * 1024
"""Of the document; base64 in the Secret makes 683 KiB of it, and a Secret may have 1 MiB."""
MAX_GROUPS = 1024
MAX_BY = 16
"""Names that are kept of those who vouched for one image."""
HASH_BYTES = 24
"""A collision costs 2^96 attempts, for whoever may have images signed and wants another one admitted."""
SKEW_S = 3600.0
"""How far clocks may differ. A verdict from further in the future was noted under a wrong clock."""
USED_STEP_S = 24 * 3600.0
"""The time of the last use is written in steps: a pod that restarts each minute must not wear out a disk."""

_REFUTED = -1
_END = 2**32
"""Minutes since 1970 beyond which no time is one."""
_Key: TypeAlias = tuple[str, str]


class DamagedBook(ValueError):  # noqa: N818 - reads as the fact it states
    """The document is not one of ours; nothing in it is believed."""


@dataclass(frozen=True)
class Entry:
    """One verdict. `verified` and `used` are Unix times (seconds); `by` names who vouched."""

    verified: float
    used: float
    by: tuple[str, ...] = ()
    refuted: bool = False


@lru_cache(maxsize=1024)
def group_of(fingerprint: str) -> str:
    """Name what is demanded, from the fingerprint of a policy's demand: all that decides, keys included."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()


def image_hash(image: str) -> str:
    """Name an image (`name@digest`) in 32 characters."""
    digest = hashlib.sha256(image.encode()).digest()[:HASH_BYTES]
    return base64.urlsafe_b64encode(digest).decode()


class VerdictBook:
    """The verdicts of one process. `changed` says whether something is worth being written."""

    def __init__(self, entries: Iterable[tuple[_Key, Entry]] = ()) -> None:
        self.changed = False
        self._entries: OrderedDict[_Key, Entry] = OrderedDict(entries)
        self._order()

    def __len__(self) -> int:
        return len(self._entries)

    def copy(self) -> VerdictBook:
        """Give a book with the same entries, for another thread."""
        book = VerdictBook()
        book._entries = self._entries.copy()
        return book

    def look_up(self, group: str, image: str) -> Entry | None:
        """Give what is known about an image (by its hash), refuted or not."""
        return self._entries.get((group, image))

    def use(self, group: str, image: str, now: float) -> None:
        """Note that an entry was needed: what is not used longest goes first."""
        key = (group, image)
        entry = self._entries.get(key)
        if entry is None:
            return
        if now - entry.used >= USED_STEP_S:
            self._entries[key] = replace(entry, used=now)
            self.changed = True
        self._entries.move_to_end(key)

    def trust(self, group: str, image: str, by: tuple[str, ...], now: float) -> None:
        """Note that an image was verified and found trusted."""
        self._put((group, image), Entry(now, now, by[:MAX_BY]))

    def refute(self, group: str, image: str, now: float) -> None:
        """Note that an image was found untrusted; matters only where it was trusted before."""
        known = self._entries.get((group, image))
        if known is not None and not known.refuted:
            # Never earlier than what it takes back, whatever the clock says.
            self._put((group, image), Entry(max(now, known.verified), now, refuted=True))

    def merge(self, other: VerdictBook, now: float) -> None:
        """Take in what another replica wrote.

        The later verdict about an image wins, of equals the no, and any over one from the future.
        """
        news = False
        for key, theirs in other._entries.items():
            mine = self._entries.get(key)
            if mine is None or mine.used < theirs.used or _rank(mine, now) < _rank(theirs, now):
                self._entries[key] = theirs if mine is None else _later(mine, theirs, now)
                news = True
        if news:
            self._order()

    def keep_only(self, groups: Collection[str]) -> None:
        """Drop the entries of all other groups: their policy or its keys are gone."""
        for key in [key for key in self._entries if key[0] not in groups]:
            del self._entries[key]
            self.changed = True

    def dump(self) -> bytes:
        """Write the document, the same bytes for the same content; at most MAX_BYTES, the least used go."""
        self._bound()
        while len(body := _dump(self._entries)) > MAX_BYTES:
            for _ in range(max(1, len(self._entries) // 8)):
                self._entries.popitem(last=False)
        return body

    def _put(self, key: _Key, entry: Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self.changed = True
        self._bound()

    def _bound(self) -> None:
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)

    def _order(self) -> None:
        self._entries = OrderedDict(sorted(self._entries.items(), key=lambda item: item[1].used))
        self._bound()


def load_book(body: bytes) -> VerdictBook:
    """Read a document that `dump` wrote. Raises DamagedBook when anything at all is wrong with it."""
    try:
        return VerdictBook(_read(body))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise DamagedBook(f"the stored verdicts cannot be read ({type(error).__name__})") from error


def _rank(entry: Entry, now: float) -> tuple[bool, int, bool]:
    return entry.verified <= now + SKEW_S, int(entry.verified // 60), entry.refuted


def _later(mine: Entry, theirs: Entry, now: float) -> Entry:
    winner = mine if _rank(mine, now) >= _rank(theirs, now) else theirs
    return replace(winner, used=max(mine.used, theirs.used))


def _dump(entries: Mapping[_Key, Entry]) -> bytes:
    people: dict[str, dict[tuple[str, ...], int]] = {}
    groups: dict[str, dict[str, Any]] = {}
    for (group, image), entry in sorted(entries.items()):
        known = people.setdefault(group, {})
        by = _REFUTED if entry.refuted else known.setdefault(entry.by, len(known))
        into = groups.setdefault(group, {"by": known, "entries": {}})
        into["entries"][image] = [int(entry.verified // 60), int(entry.used // 60), by]
    for content in groups.values():
        content["by"] = [list(names) for names in content["by"]]
    return json.dumps({"version": VERSION, "groups": groups}, separators=(",", ":")).encode()


def _read(body: bytes) -> Iterator[tuple[_Key, Entry]]:
    if len(body) > MAX_BYTES:
        raise ValueError("too large")
    document = json.loads(body)
    if document["version"] != VERSION or len(document["groups"]) > MAX_GROUPS:
        raise ValueError("another version")
    for group, content in document["groups"].items():
        _require_hash(bytes.fromhex(group), 32)
        people = [_names(by) for by in content["by"]]
        for image, (verified, used, by) in content["entries"].items():
            _require_hash(base64.b64decode(image, altchars=b"-_", validate=True), HASH_BYTES)
            yield (group, image), _entry(verified, used, by, people)


def _entry(verified: int, used: int, by: int, people: list[tuple[str, ...]]) -> Entry:
    if not all(type(number) is int for number in (verified, used, by)):
        raise TypeError("not a whole number")
    if not (0 <= verified < _END and 0 <= used < _END and by >= _REFUTED):
        raise ValueError("out of range")
    refuted = by == _REFUTED
    return Entry(verified * 60.0, used * 60.0, () if refuted else people[by], refuted)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("not a list of names")
    return tuple(value)


def _require_hash(value: bytes, length: int) -> None:
    if len(value) != length:
        raise binascii.Error("not a hash")
