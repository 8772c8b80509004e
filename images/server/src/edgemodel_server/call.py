"""One inference under way: what it asks, until when, and who gets the answer.

The protocols make calls and the models answer them; neither knows the other.
"""

import math
from asyncio import TimerHandle
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TypeAlias

from edgemodel_server.access_log import Work
from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError

Outcome: TypeAlias = "Sequence[Tensor] | ApiError"
"""The wanted outputs in the order in which they were asked for, or why there are none.

The arrays may be memory that the next computation writes to: whoever keeps them copies them.
"""


class Call:
    """One inference; made and ended on the loop's thread, computed there or on another.

    ``inputs`` are checked against the model's signature, ``outputs`` are the wanted names, ``received`` and
    ``deadline`` monotonic seconds. ``finish`` is called once with the outcome, and never after ``cancel``; it
    returns an error where the outcome could not be told (JSON has no NaN).
    """

    __slots__ = (
        "deadline", "finish", "inputs", "on_cancel", "outputs", "over", "queued", "received", "timer",
        "work",
    )  # fmt: skip

    def __init__(
        self,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str],
        finish: Callable[[Outcome], ApiError | None],
        *,
        received: float,
        deadline: float = math.inf,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.finish = finish
        self.received = received
        self.deadline = deadline
        self.queued = monotonic()
        self.over = False  # nobody waits for an answer any more; read by other threads
        self.on_cancel: Callable[[], None] | None = None  # set by who computes it
        self.timer: TimerHandle | None = None  # as above: ends the call at its deadline
        self.work: Work | None = None  # filled in where there is an access log

    def cancel(self) -> None:
        """Drop the call: nobody waits for the answer. It is not computed, unless it already is."""
        if self.over:
            return
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        if self.on_cancel is not None:
            self.on_cancel()

    def end(self, outcome: Outcome) -> ApiError | None:
        """Give the outcome to whoever waits; returns the error that this became, if any."""
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        return self.finish(outcome)
