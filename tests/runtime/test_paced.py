"""Items of an outbox that wait for the rate of their value: which come next, and under which numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqpipeline.protocol.commands import Fetch, SetRun
from zmqpipeline.protocol.data.dedup import split_keys
from zmqpipeline.protocol.events import Fetched
from zmqpipeline.protocol.messages import KEY_BYTES
from zmqpipeline.runtime.journal import MEMORY, Journal
from zmqpipeline.serialization.pack import pack, unpack

BIG = 1 << 20


def host(n: int) -> bytes:
    """The digest of a value."""
    return b"%0*d" % (KEY_BYTES, n)


def new(path: Path | str = MEMORY) -> Journal:
    """A journal of a run with one fed task."""
    made = Journal(path, pipeline="crawl", fed=["B"], durable=False)
    made.begin(SetRun("run", b"", restored=made.restored is not None))
    return made


@pytest.fixture
def journal() -> Iterator[Journal]:
    """One in memory."""
    with closing(new()) as made:
        yield made


def give(journal: Journal, *hosts: int) -> None:
    """Results have given items of these values, in this order."""
    for index, one in enumerate(hosts):
        journal.outboxes.give("B", pack([one, index]), b"", 0, host(one))
    journal.outboxes.accept()
    journal.commit()


def fetch(
    journal: Journal, start: int, now: float, count: int = 100, apart: float = 1.0, burst: int = 1
) -> tuple[Fetched, list[int]]:
    """What comes next at this time, and of which values."""
    found = journal.outboxes.fetch(Fetch("B", start, start + count, BIG, now, apart, burst))
    journal.commit()
    return found, [int(one) for one in split_keys(found.values)]


def test_one_of_each_value_whatever_waits_before_it(journal: Journal) -> None:
    """A thousand of one value in front keep no other; each comes again when its time has come."""
    give(journal, *[1] * 1000, 2, 3, 2)
    found, hosts = fetch(journal, 0, 0.0)
    assert (found.spans, sorted(hosts)) == ((0, 3), [1, 2, 3])
    found, hosts = fetch(journal, 3, 0.5)
    assert (found.spans, hosts, found.until) == ((), [], 1.0)
    found, hosts = fetch(journal, 3, 1.0)
    assert (found.spans, sorted(hosts)) == ((3, 5), [1, 2])
    assert journal.outboxes.box("B").count == 1003


def test_a_burst_comes_at_once(journal: Journal) -> None:
    """And is divided among the values, if not all of it is asked for."""
    give(journal, *[1] * 50, *[2] * 50)
    _, hosts = fetch(journal, 0, 0.0, apart=0.1, burst=10, count=10)
    assert sorted(hosts) == [1] * 5 + [2] * 5
    _, hosts = fetch(journal, 10, 0.0, apart=0.1, burst=10)
    assert sorted(hosts) == [1] * 5 + [2] * 5
    found, _ = fetch(journal, 20, 0.05, apart=0.1, burst=10)
    assert found.until == pytest.approx(0.1)


def test_who_asks_again_finds_what_has_a_number(journal: Journal) -> None:
    """Nothing gets a number twice, and no more get one by asking again; what is done is not said again."""
    give(journal, 1, 2, 3, 1, 2, 3)
    first, _ = fetch(journal, 0, 0.0)
    again, hosts = fetch(journal, 0, 5.0)
    assert (again.spans, again.values, list(again.payloads)) == (first.spans, first.values, list(first.payloads))
    assert fetch(journal, 1, 5.0)[0].spans == (1, 3)
    journal.collected("B", [0, 1, 2], b"")
    journal.commit()
    found, hosts = fetch(journal, 0, 5.0)
    assert (found.spans, sorted(hosts)) == ((3, 6), [1, 2, 3])


def test_who_is_started_again_goes_on(tmp_path: Path) -> None:
    """With what had a number and what had none; what was not committed never had one."""
    first = new(tmp_path / "j.db")
    give(first, 1, 1, 2)
    fetch(first, 0, 100.0)
    first.outboxes.fetch(Fetch("B", 2, 10, BIG, 200.0, 1.0, 1))
    first.rollback()
    waiting = first.outboxes.box("B").waiting
    first.close()
    with closing(new(tmp_path / "j.db")) as second:
        box = second.outboxes.box("B")
        assert (box.count, box.numbered, box.waiting) == (3, 2, waiting)
        assert sorted(fetch(second, 0, 0.0)[1]) == [1, 2]
        # a clock that begins anew keeps nothing for longer than its rate
        assert fetch(second, 2, 1.0)[0].until == 2.0
        found, hosts = fetch(second, 2, 2.0)
        assert (found.spans, hosts) == ((2, 3), [1])


def test_a_call_that_raises_leaves_nothing(journal: Journal) -> None:
    """However much it had given."""
    give(journal, 1)
    before = journal.outboxes.box("B").waiting
    for n in range(3000):
        journal.outboxes.give("B", b"%d" % n, b"", 0, host(n % 7))
    journal.outboxes.undo()
    journal.commit()
    box = journal.outboxes.box("B")
    assert (box.count, box.waiting) == (1, before)
    assert fetch(journal, 0, 0.0)[1] == [1]


def test_all_that_is_done_leaves_nothing(journal: Journal) -> None:
    """No row of an item or of a value, and no byte that waits."""
    give(journal, *range(500), *range(500))
    done, now = 0, 0.0
    while done < 1000:
        found, _ = fetch(journal, done, now, count=64)
        now = found.until or now + 0.01
        numbers = list(range(*found.spans)) if found.spans else []
        journal.collected("B", numbers, b"")
        done += len(numbers)
    journal.commit()
    give(journal, 1)
    fetch(journal, 1000, now + 100)
    journal.collected("B", [1000], b"")
    journal.commit()
    fetch(journal, 1001, now + 200)
    assert journal.outboxes.box("B").waiting == 0
    db = journal.outboxes._db
    tables = ("zmqpipeline_paced", "zmqpipeline_outbox", "zmqpipeline_values")
    assert [db.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in tables] == [0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=80),
    st.floats(0.1, 10),
    st.integers(1, 5),
    st.integers(1, 10),
    st.floats(0.01, 3),
)
def test_each_value_by_its_rate_and_nobody_starves(
    hosts: list[int], apart: float, burst: int, count: int, pause: float
) -> None:
    """Whoever asks how often for how many: all come, in the order of their value, no value faster than the law."""
    with closing(new()) as journal:
        give(journal, *hosts)
        now, done, times, order = 0.0, 0, dict[int, list[float]](), dict[int, list[int]]()
        while done < len(hosts):
            found, values = fetch(journal, done, now, count, apart, burst)
            for value, payload in zip(values, found.payloads, strict=True):
                times.setdefault(value, []).append(now)
                order.setdefault(value, []).append(unpack(payload)[1])
            done += len(values)
            assert values or found.until > now
            now = max(now + pause, found.until) if done < len(hosts) else now
        for value, taken in order.items():
            assert taken == [index for index, one in enumerate(hosts) if one == value]
            for low in range(len(taken) - burst):
                assert times[value][low + burst] - times[value][low] >= apart - 1e-6
        assert all(later > earlier for each in order.values() for earlier, later in pairwise(each))
        rounds = max(map(len, order.values())) * apart
        assert now <= rounds + (len(hosts) + 1) * pause + apart


def value_of(payload: bytes) -> bytes:
    """As an app with `rate_by` makes it."""
    return host(unpack(payload)[0])


def test_a_run_goes_on_without_the_rate(tmp_path: Path) -> None:
    """The app was changed: what waited without a number gets one, in the order in which it came."""
    with closing(new(tmp_path / "run.journal")) as journal:
        give(journal, *[1] * 2500, 2)
        found, _ = fetch(journal, 0, 0.0, apart=0.1, burst=10)
        assert found.spans == (0, 11)
    with closing(new(tmp_path / "run.journal")) as journal:
        journal.outboxes.begin_rates({})
        journal.commit()
        numbers: list[int] = []
        while len(numbers) < 2501:
            plain = journal.outboxes.fetch(Fetch("B", len(numbers), 2501, BIG))
            numbers += [unpack(one)[1] for one in plain.payloads]
            assert plain.payloads
        assert sorted(numbers) == list(range(2501))
        assert numbers[11:] == [n for n in range(2501) if n not in numbers[:11]]
        assert journal.outboxes.box("B").count == 2501
        # and once more with it
        journal.outboxes.begin_rates({"B": value_of})
        give(journal, 3)
        assert fetch(journal, 2501, 0.0)[0].spans == (2501, 2502)


def test_a_run_goes_on_with_a_rate_for_each_value(tmp_path: Path) -> None:
    """The app was changed: what has a number keeps it, and gets its value."""
    with closing(new(tmp_path / "run.journal")) as journal:
        for index in range(30):
            journal.outboxes.give("B", pack([index % 3, index]))
        journal.outboxes.accept()
        journal.commit()
    with closing(new(tmp_path / "run.journal")) as journal:
        journal.outboxes.begin_rates({"B": value_of})
        give(journal, 7)
        found, hosts = fetch(journal, 0, 0.0)
        assert found.spans == (0, 30)
        assert hosts == [n % 3 for n in range(30)]
        found, hosts = fetch(journal, 30, 0.0)
        assert (found.spans, hosts) == ((30, 31), [7])
