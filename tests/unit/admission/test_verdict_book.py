"""Which verdicts are remembered beyond a process, how they are merged, and that damage never means trust."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.admission import verdict_book
from edgemodel_operator.admission.verdict_book import (
    MAX_BYTES,
    MAX_ENTRIES,
    USED_STEP_S,
    DamagedBook,
    Entry,
    VerdictBook,
    group_of,
    image_hash,
    load_book,
)

NOW = 1_800_000_000.0
GROUP = group_of("one key")
OTHER_GROUP = group_of("another key")
BY = ("operator=sha256:aa",)


def image(number: int) -> str:
    return image_hash(f"registry.plant-a.local:5000/models/m@sha256:{number:064x}")


def book_of(*numbers: int, now: float = NOW) -> VerdictBook:
    book = VerdictBook()
    for number in numbers:
        book.trust(GROUP, image(number), BY, now)
    return book


def test_what_was_written_is_read_again_to_the_minute() -> None:
    book = book_of(1, 2)
    book.trust(OTHER_GROUP, image(1), (), NOW + 90)
    book.refute(GROUP, image(2), NOW + 90)
    again = load_book(book.dump())
    assert again.look_up(GROUP, image(1)) == Entry(NOW, NOW, BY)
    assert again.look_up(OTHER_GROUP, image(1)) == Entry(NOW + 60, NOW + 60, ())
    assert again.look_up(GROUP, image(2)) == Entry(NOW + 60, NOW + 60, (), refuted=True)
    assert again.look_up(OTHER_GROUP, image(2)) is None
    assert again.dump() == book.dump()
    assert not again.changed


def test_the_document_names_neither_images_nor_their_places() -> None:
    assert b"plant-a" not in book_of(1).dump()


def test_only_what_was_trusted_before_is_remembered_as_refuted() -> None:
    book = VerdictBook()
    book.refute(GROUP, image(1), NOW)
    assert len(book) == 0
    assert not book.changed


def test_of_two_replicas_the_later_verdict_counts_and_of_equals_the_no() -> None:
    for first, second in ((0, 60), (0, 0), (0, 30)):
        trusting, refuting = book_of(1, now=NOW + first), book_of(1)
        refuting.refute(GROUP, image(1), NOW + second)
        for one, other in ((trusting, refuting), (refuting, trusting)):
            merged = load_book(one.dump())
            merged.merge(load_book(other.dump()), NOW + 100)
            entry = merged.look_up(GROUP, image(1))
            assert entry is not None
            assert entry.refuted
    refuting = book_of(1)
    refuting.refute(GROUP, image(1), NOW)
    refuting.merge(book_of(1, now=NOW + 60), NOW + 100)
    assert refuting.look_up(GROUP, image(1)) == Entry(NOW + 60, NOW + 60, BY)


def test_a_replica_whose_clock_is_behind_cannot_bring_a_refuted_verdict_back_nor_lose_one() -> None:
    shared, behind = book_of(1), book_of(1)
    behind.refute(GROUP, image(1), 600.0)
    behind.merge(shared, 600.0)
    shared.merge(behind, NOW)
    entry = shared.look_up(GROUP, image(1))
    assert entry is not None
    assert entry.refuted
    behind = book_of(1)
    behind.trust(GROUP, image(1), BY, 600.0)
    behind.merge(book_of(1), 600.0)
    entry = behind.look_up(GROUP, image(1))
    assert entry is not None
    assert entry.used == NOW  # so it still counts as used once the clock is right


def test_a_verdict_from_the_future_gives_way_to_one_of_now() -> None:
    future = book_of(1, now=NOW + 10 * 365 * 86400)
    book = book_of(1)
    book.refute(GROUP, image(1), NOW)
    book.merge(future, NOW)
    entry = book.look_up(GROUP, image(1))
    assert entry is not None
    assert entry.refuted


def test_use_is_written_in_steps_of_a_day() -> None:
    book = load_book(book_of(1).dump())
    book.use(GROUP, image(1), NOW + USED_STEP_S - 1)
    assert not book.changed
    book.use(GROUP, image(1), NOW + USED_STEP_S)
    assert book.changed
    entry = book.look_up(GROUP, image(1))
    assert entry == Entry(NOW, NOW + USED_STEP_S, BY)
    book.use(GROUP, image(9), NOW)
    assert book.look_up(GROUP, image(9)) is None


def test_what_was_not_used_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_book, "MAX_ENTRIES", 3)
    book = book_of(1, 2, 3)
    book.use(GROUP, image(1), NOW)
    book.trust(GROUP, image(4), BY, NOW)
    assert [book.look_up(GROUP, image(n)) is not None for n in (1, 2, 3, 4)] == [True, False, True, True]
    old = VerdictBook([((GROUP, image(n)), Entry(NOW, NOW + n)) for n in (9, 7, 8)])
    old.merge(book_of(1, now=NOW + 100), NOW + 100)
    assert [old.look_up(GROUP, image(n)) is not None for n in (7, 8, 9, 1)] == [False, True, True, True]


def test_a_full_book_fits_into_a_secret() -> None:
    book = VerdictBook()
    for number in range(MAX_ENTRIES + 100):
        book.trust(group_of(str(number % 40)), image(number), (f"{BY[0]}{number % 7}",), NOW)
    assert len(book) == MAX_ENTRIES
    body = book.dump()
    assert len(body) * 4 / 3 < 700 * 1024
    assert len(load_book(body)) == MAX_ENTRIES


def test_names_that_take_too_much_room_cost_entries_never_the_limit() -> None:
    book = VerdictBook()
    for number in range(2000):
        book.trust(GROUP, image(number), (f"{number:0512}",), NOW + number)
    body = book.dump()
    assert len(body) <= MAX_BYTES
    assert load_book(body).look_up(GROUP, image(1999)) is not None


def test_groups_of_policies_that_are_gone_are_dropped() -> None:
    book = book_of(1)
    book.trust(OTHER_GROUP, image(1), BY, NOW)
    book = load_book(book.dump())
    book.keep_only({GROUP, OTHER_GROUP})
    assert not book.changed
    book.keep_only({OTHER_GROUP})
    assert book.changed
    assert book.look_up(GROUP, image(1)) is None
    assert book.look_up(OTHER_GROUP, image(1)) is not None


def document(**change: Any) -> Any:
    content = {"by": [["a"]], "entries": {image(1): [1, 1, 0]}} | change
    return {"version": 1, "groups": {GROUP: content}}


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        {"version": 2, "groups": {}},
        {"version": 1},
        {"version": 1, "groups": []},
        {"version": 1, "groups": {"zz": {"by": [], "entries": {}}}},
        {"version": 1, "groups": {GROUP: []}},
        {"version": 1, "groups": {GROUP[:10]: {"by": [], "entries": {}}}},
        document(by="a"),
        document(by=["a"]),
        document(by=[[1]]),
        document(entries=[]),
        document(entries={"": [1, 1, 0]}),
        document(entries={"!" * 32: [1, 1, 0]}),
        document(entries={image(1): [1, 1]}),
        document(entries={image(1): [1, 1, 1]}),
        document(entries={image(1): [1, 1, -2]}),
        document(entries={image(1): [-1, 1, 0]}),
        document(entries={image(1): [1, 2**70, 0]}),
        document(entries={image(1): [1.5, 1, 0]}),
        document(entries={image(1): [True, 1, 0]}),
        document(entries={image(1): "110"}),
        b" " * (MAX_BYTES + 1),
    ],
)
def test_of_a_damaged_document_nothing_is_believed(damaged: Any) -> None:
    body = damaged if isinstance(damaged, bytes) else json.dumps(damaged).encode()
    with pytest.raises(DamagedBook):
        load_book(body)


@given(position=st.integers(0, 400), replacement=st.binary(max_size=3))
def test_any_change_of_a_document_is_refused_or_read_as_a_book(position: int, replacement: bytes) -> None:
    body = book_of(1, 2, 3).dump()
    position %= len(body)
    try:
        load_book(body[:position] + replacement + body[position + 1 :]).dump()
    except DamagedBook:
        return
