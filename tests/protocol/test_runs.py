"""Runs against a dictionary: the same numbers, values and tags, however they are added and cut."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmqpipeline.protocol.data.segments import MERGE_ITEMS, Segment, SegmentMap

NUMBERS = st.integers(0, 60)


def values_of(run: Segment[str]) -> dict[int, tuple[bytes, str]]:
    """What a run holds, by number."""
    return {run.start + at: (one, run.tag) for at, one in enumerate(run.payloads)}


class RunsMachine(RuleBasedStateMachine):
    """The model: a value and a tag for each number."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: SegmentMap[str] = SegmentMap()
        self.model: dict[int, tuple[bytes, str]] = {}

    @rule(start=NUMBERS, count=st.integers(0, 8), tag=st.sampled_from("ab"))
    def add(self, start: int, count: int, tag: str) -> None:
        """Whatever is free may be added, in any order."""
        if any(number in self.model for number in range(start, start + count)):
            return
        self.runs.add(start, [b"%d" % number for number in range(start, start + count)], tag)
        self.model.update({number: (b"%d" % number, tag) for number in range(start, start + count)})

    @rule(marks=st.sets(NUMBERS, min_size=4, max_size=4))
    def by_tag(self, marks: set[int]) -> None:
        """What is held of two ranges, sorted by tag, ascending; nothing is taken out."""
        one, two, three, four = sorted(marks)
        wanted: dict[str, tuple[list[int], list[bytes]]] = {}
        for number in (*range(one, two), *range(three, four)):
            if number in self.model:
                value, tag = self.model[number]
                numbers, values = wanted.setdefault(tag, ([], []))
                numbers.append(number)
                values.append(value)
        assert self.runs.by_tag((one, two, three, four)) == wanted

    @rule(start=NUMBERS, count=st.integers(0, 30))
    def cut(self, start: int, count: int) -> None:
        """What is cut out is exactly what was in the range, ascending, and is gone."""
        parts = self.runs.cut(start, start + count)
        got = {number: value for part in parts for number, value in values_of(part).items()}
        assert got == {number: value for number, value in self.model.items() if start <= number < start + count}
        assert [part.start for part in parts] == sorted(part.start for part in parts)
        for number in got:
            del self.model[number]

    @rule(start=NUMBERS, count=st.integers(0, 30))
    def touching(self, start: int, count: int) -> None:
        """A look takes nothing away, and shows each run that reaches into the range."""
        found = self.runs.touching(start, start + count)
        wanted = [run for run in self.runs if run.start < start + count and run.stop > start]
        assert found == (wanted if count else [])

    @invariant()
    def agrees(self) -> None:
        """All views say the same."""
        self.runs.check()
        got = {number: value for run in self.runs for number, value in values_of(run).items()}
        assert got == self.model
        assert len(self.runs) == len(self.model)
        spans = self.runs.spans()
        assert [n for at in range(0, len(spans), 2) for n in range(spans[at], spans[at + 1])] == sorted(self.model)
        assert all((number in self.runs) == (number in self.model) for number in range(70))


RunsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRunsAgainstAModel = RunsMachine.TestCase


def test_a_run_does_not_grow_without_end() -> None:
    """Neighbours with one tag become one run, up to a size that is cheap to cut; another tag begins a new one."""
    runs: SegmentMap[str] = SegmentMap()
    for start in range(0, 3 * MERGE_ITEMS, 500):
        runs.add(start, [b""] * 500, "a")
    assert [len(run.payloads) for run in runs] == [MERGE_ITEMS] * 3
    runs.add(3 * MERGE_ITEMS, [b""], "b")
    assert len(list(runs)) == 4
