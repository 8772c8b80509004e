"""What may be put behind the part of a file that has arrived, and how long a server asks us to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.build.sources.connection import retry_after
from edgemodel_operator.build.sources.resume import Part, validator_of

NOW = "Sat, 21 Nov 2026 12:00:00 GMT"
BEFORE = "Sat, 21 Nov 2026 11:59:59 GMT"
LATER = "Sat, 21 Nov 2026 12:00:30 GMT"
PART = Part(4000, 10240, '"v1"')


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": '"v1"'}, '"v1"'),
        ({"ETag": '""'}, '""'),
        ({"ETag": 'W/"v1"'}, ""),
        ({"ETag": "v1"}, ""),
        ({"ETag": '"two" "tags"'}, ""),
        ({"ETag": 'W/"v1"', "Last-Modified": BEFORE, "Date": NOW}, BEFORE),
        ({"ETag": '"v1"', "Last-Modified": BEFORE, "Date": NOW}, '"v1"'),
        ({"Last-Modified": NOW, "Date": NOW}, ""),
        ({"Last-Modified": LATER, "Date": NOW}, ""),
        ({"Last-Modified": BEFORE}, ""),
        ({"Last-Modified": "yesterday", "Date": NOW}, ""),
        ({"Last-Modified": "Sat, 21 Nov 2026 11:59:59 -0000", "Date": NOW}, ""),
        ({}, ""),
    ],
)
def test_what_names_a_version_for_certain(headers: dict[str, str], validator: str) -> None:
    assert validator_of(headers) == validator


@pytest.mark.parametrize("part", [Part(), Part(0, 10, '"v1"'), Part(10, 20, "")])
def test_without_a_part_or_a_version_everything_is_asked_for(part: Part) -> None:
    assert part.headers == {}
    assert not part.continued_by({"Content-Range": f"bytes {part.received}-19/20"})


def test_the_rest_is_asked_for_on_a_condition() -> None:
    assert PART.headers == {"Range": "bytes=4000-", "If-Range": '"v1"'}


@pytest.mark.parametrize(
    ("headers", "continued"),
    [
        ({"Content-Range": "bytes 4000-10239/10240", "ETag": '"v1"'}, True),
        ({"Content-Range": "bytes 4000-10239/10240"}, True),
        ({"Content-Range": "bytes 4000-10239/*"}, True),
        ({"Content-Range": "bytes 4000-10239/10240", "ETag": '"v2"'}, False),
        ({"Content-Range": "bytes 4000-10239/10240", "ETag": 'W/"v1"'}, False),
        ({"Content-Range": "bytes 3999-10239/10240", "ETag": '"v1"'}, False),
        ({"Content-Range": "bytes 4000-10238/10240", "ETag": '"v1"'}, False),
        ({"Content-Range": "bytes 4000-10240/10241", "ETag": '"v1"'}, False),
        ({"Content-Range": "bytes 4000-9999/*", "ETag": '"v1"'}, False),
        ({"Content-Range": "bytes */10240"}, False),
        ({"Content-Range": "bytes 4000-1e9/10240"}, False),
        ({"Content-Range": "bytes \u0664000-10239/10240"}, False),
        ({}, False),
    ],
)
def test_what_continues_a_part(headers: dict[str, str], *, continued: bool) -> None:
    assert PART.continued_by(headers) is continued


def test_a_part_of_unknown_length_and_one_named_by_a_date() -> None:
    headers = {"Content-Range": "bytes 5-9/10", "ETag": 'W/"x"'}
    assert Part(5, None, BEFORE).continued_by(headers)
    assert not Part(5, 11, BEFORE).continued_by(headers)


@given(st.text(max_size=40), st.text(max_size=10), st.integers(0, 99), st.none() | st.integers(0, 99))
def test_whatever_a_server_says_it_is_an_answer(
    text: str, tag: str, received: int, total: int | None
) -> None:
    assert Part(received, total, '"v"').continued_by({"Content-Range": text, "ETag": tag}) in {True, False}
    assert isinstance(validator_of({"ETag": tag, "Last-Modified": text, "Date": text}), str)
    assert retry_after({"Retry-After": text, "Date": tag}) is None or text.strip().isdigit()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 17 "}, 17.0),
        ({"Retry-After": "86400"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "\u0661"}, None),
        ({"Retry-After": LATER, "Date": NOW}, 30.0),
        ({"Retry-After": BEFORE, "Date": NOW}, None),
        ({"Retry-After": LATER}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
