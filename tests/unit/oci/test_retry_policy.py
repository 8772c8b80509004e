"""How long the registry client waits before it tries again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.oci.transport import RetryPolicy, parse_retry_after

POLICY = RetryPolicy(first_pause=0.25, longest_pause=10.0, longest_retry_after=60.0)


@given(st.integers(1, 40))
def test_pauses_grow_up_to_a_limit(attempt: int) -> None:
    ceiling = min(10.0, 0.25 * 2 ** (attempt - 1))
    assert ceiling / 4 <= POLICY.pause(attempt, None) <= ceiling


def test_pauses_differ_so_that_many_sites_do_not_return_in_step() -> None:
    assert len({POLICY.pause(5, None) for _ in range(20)}) > 10


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 0.0), (7.0, 7.0), (3600.0, 60.0)])
def test_the_registry_s_wish_is_respected_within_reason(asked: float, waited: float) -> None:
    assert POLICY.pause(1, asked) == waited


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("Fri, 20 Nov 2026 12:01:00 GMT", 60),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0),
        ("1234567", None),
        ("-5", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, datetime(2026, 11, 20, 12, tzinfo=UTC)) == seconds
