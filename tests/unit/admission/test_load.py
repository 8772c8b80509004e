"""What comes beyond the limits is turned away, and room is given back."""

from __future__ import annotations

import contextlib

import pytest

from edgemodel_operator.admission.load import Load, TooBusy
from edgemodel_operator.admission.metrics import AdmissionMetrics


def test_reviews_and_bytes_beyond_the_limits_are_turned_away_and_counted() -> None:
    metrics = AdmissionMetrics()
    load = Load(metrics, max_reviews=2, max_bytes=100)
    with contextlib.ExitStack() as busy:
        for _ in range(2):
            busy.enter_context(load.judging())
            take = busy.enter_context(load.holding())
            for _ in range(2):
                take(25)
        with pytest.raises(TooBusy):
            busy.enter_context(load.judging())
        other = busy.enter_context(load.holding())
        with pytest.raises(TooBusy):
            other(1)
        other(0)
    assert metrics.registry.get_sample_value("edgemodel_admission_shed_reviews_total") == 2
    with load.judging(), load.holding() as take:
        take(100)


def test_room_is_given_back_also_after_a_failure() -> None:
    load = Load(AdmissionMetrics(), max_reviews=1, max_bytes=1)

    def fail() -> None:
        with load.judging(), load.holding() as take:
            take(1)
            raise ValueError("broken")

    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            fail()
