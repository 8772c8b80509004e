"""Writing beside others: who sees them at work stays until they end, and repairs what they wiped out."""

from __future__ import annotations

import pytest

from edgemodel_operator.signing import contention
from edgemodel_operator.signing.contention import LOOKS, write_until_kept
from edgemodel_operator.signing.errors import SignatureLost


class Shelf:
    """An object in a registry on which, look by look, others do what a script says."""

    def __init__(self, script: list[str]) -> None:
        self.state = ""
        self.script = script
        self.writes = 0
        self.looks = 0

    async def write(self) -> None:
        self.writes += 1
        self.state = f"{self.state}+ours"

    async def look(self) -> str:
        self.looks += 1
        if self.script:
            self.state = self.script.pop(0) or self.state
        return self.state if "ours" in self.state else ""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SETTLE_S", "CONTENDED_SETTLE_S", "FIRST_PAUSE_S", "MAX_PAUSE_S"):
        monkeypatch.setattr(contention, name, 0.0)


async def test_a_writer_alone_looks_a_few_times_and_goes() -> None:
    shelf = Shelf([])
    await write_until_kept(shelf.write, shelf.look)
    assert (shelf.writes, shelf.looks) == (1, LOOKS + 1)


async def test_what_is_wiped_out_at_once_is_written_again() -> None:
    shelf = Shelf(["theirs"])
    await write_until_kept(shelf.write, shelf.look)
    assert (shelf.writes, shelf.state) == (2, "theirs+ours")


async def test_a_writer_who_saw_another_stays_long_enough_to_see_the_slow_one() -> None:
    shelf = Shelf(["", "", "", "+ours+second", "", "", "slow"])
    await write_until_kept(shelf.write, shelf.look)
    assert (shelf.writes, shelf.state) == (2, "slow+ours")


async def test_whoever_never_ends_is_not_waited_for() -> None:
    shelf = Shelf([f"ours+{number}" for number in range(contention.MAX_CHANGES + 10)])
    await write_until_kept(shelf.write, shelf.look)
    assert shelf.writes == 1


async def test_a_part_that_never_stays_is_called_lost() -> None:
    shelf = Shelf(["theirs"] * 1000)
    with pytest.raises(SignatureLost):
        await write_until_kept(shelf.write, shelf.look)
