"""The search for secrets finds them, or what it does not find would prove nothing."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.marks import MIN_BYTES, Marks, forms_of

SECRET = b"a marked/secret+with?bits\xff"


@given(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from([base64.b64encode, bytes.hex, bytes]))
def test_a_secret_is_found_wherever_it_stands_and_however_it_is_written(
    before: bytes, after: bytes, written: object
) -> None:
    assert callable(written)
    text = written(before + SECRET + after)
    raw = text.encode() if isinstance(text, str) else text
    assert Marks({"secret": SECRET}).found_in(b"{" + raw + b"}") == {"secret"}


@given(st.binary(max_size=200))
def test_nothing_is_found_where_nothing_is(text: bytes) -> None:
    assert not Marks({"secret": SECRET}).found_in(text.replace(SECRET, b""))


def test_what_would_be_found_by_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="by chance"):
        forms_of(b"x" * (MIN_BYTES - 1))
