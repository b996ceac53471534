"""What the benchmarks compute from what they have measured, and the yardstick's own parts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from examples.benchmarks import figures, rates, raw, scale, schedules, sides, startup, work

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop


def test_a_row_is_of_medians() -> None:
    """One round that was disturbed does not show; what is compared was measured in the same round."""
    made = figures.row("what", "us", [1.0, 2.0, 90.0], [4.0, 80.0, 3.0], beside=[5.0, 7.0, 6.0])
    assert (made.raw, made.ours, made.ratio, made.difference, made.beside) == (2.0, 4.0, 4.0, 2.0, 6.0)
    slower_and_slower = figures.row("what", "us", [1.0, 2.0, 4.0, 8.0], [2.0, 4.0, 8.0, 16.0])
    assert slower_and_slower.ratio == 2.0
    with pytest.raises(ValueError, match="zip"):
        figures.row("what", "us", [1.0], [1.0, 2.0])
    assert figures.percentile(range(100), 0.99) == 99


def test_rates_and_overheads_are_what_they_say() -> None:
    """The items that came with the first message are not counted; overhead is by the naps of each slot."""
    run = sides.Run(items=1100, launched=1.0, began=2.0, first=3.0, last=5.0, head=100)
    assert (run.rate, run.whole, run.until_first) == (500.0, 3.0, 2.0)
    assert work.percent(1.02, items=1000, slots=10) == pytest.approx(2.0)
    assert [schedules.items_of(1000, slots) for slots in (1, 2, 10, 20)] == [1000, 1000, 1000, 5000]
    assert schedules.best(slept=10.0, longest=1.0, slots=4) == 2.5
    assert schedules.best(slept=10.0, longest=3.0, slots=4) == 3.0


def test_payloads_have_sizes_that_make_sense() -> None:
    """Neither three items nor millions; the yardstick's messages are never larger than an item need be."""
    assert [rates.items_of(size, 100) for size in (100, 100_000, 10_000_000, 50_000_000)] == [200_000, 1000, 10, 8]
    assert [rates.batch_of(size) for size in (100, 10_000, 65_536, 1_000_000)] == [100, 6, 1, 1]
    first, second = work.items("bytes", 2, size=1000)
    assert len(first["data"]) == 1000
    assert work.hand_on(second) == {"n": 1, "double": 2, "data": first["data"]}


@pytest.mark.parametrize(("batch", "packing"), [(1, "item"), (3, "item"), (3, "batch")])
def test_the_yardstick_packs_what_it_unpacks(batch: int, packing: str) -> None:
    """Each of its three ways."""
    plan = raw.Plan("trivial", 3, "", "", "", "", "", batch=batch, packing=packing)
    pack, unpack = raw.codec(plan)
    items = list(work.items("trivial", batch))
    assert unpack(pack(items)) == items
    assert raw.Plan(**json.loads(plan.text())) == plan


def test_a_mark_behind_the_last_item_is_refused(workshop: Workshop) -> None:
    """Nothing could be compared with it."""
    status, program = workshop.run("-m", "examples.benchmarks", "memory", "--items", "20", "--mark", "20")
    assert status == 2
    assert "--mark 20 is no item before the last of --items 20" in program.err


def test_naps_and_imports_take_their_time() -> None:
    """The plain loop takes at least its naps; an import takes some; a program without a usage is found out."""
    assert schedules.plain_loop(3) >= 3 * work.NAP
    assert 0 < startup.import_seconds("import json") < 10
    with pytest.raises(SystemExit, match="printed no usage"):
        startup.help_seconds("-c", "print('nothing')")


def test_what_is_promised_of_some_sizes_only() -> None:
    """A thousand workers, and a payload of a megabyte; the tiny runs above do not get so far."""
    assert (scale._target(100), scale._target(1000)) == ("", "at most 1.5")
    assert rates.PAYLOAD_TARGETS == {1_000_000: "at least 0.6"}
