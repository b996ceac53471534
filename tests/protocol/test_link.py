"""The verdicts of a link on what arrives: in order, doubled, lost in between, from another process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zmqpipeline.protocol.messages import Bye, Envelope, Probe
from zmqpipeline.protocol.peers import Link, Verdict


def two() -> tuple[Link, Link]:
    """Two sides that know each other."""
    here, there = Link(b"here"), Link(b"there")
    here.admit(there.wrap(Bye("r")))
    there.admit(here.wrap(Bye("r")))
    return here, there


def test_the_first_message_is_from_a_new_process() -> None:
    """Whoever is heard for the first time is NEW, and from then on FRESH in order."""
    here, there = Link(b"here"), Link(b"there")
    assert here.admit(there.wrap(Bye("r"))) is Verdict.NEW
    assert here.admit(there.wrap(Bye("r"))) is Verdict.FRESH


def test_a_doubled_message_is_a_repeat() -> None:
    """The same message twice is taken once."""
    here, there = two()
    envelope = there.wrap(Bye("r"))
    assert here.admit(envelope) is Verdict.FRESH
    assert here.admit(envelope) is Verdict.REPEAT


def test_a_late_message_is_a_repeat() -> None:
    """A message that was overtaken by a newer one is dropped: the gap was told when the newer one came."""
    here, there = two()
    late = there.wrap(Bye("r"))
    assert here.admit(there.wrap(Bye("r"))) is Verdict.GAP
    assert here.admit(late) is Verdict.REPEAT


def test_a_lost_message_is_a_gap_once() -> None:
    """After a lost message the next one shows the gap, the one after it is fresh again."""
    here, there = two()
    there.wrap(Bye("r"))
    assert here.admit(there.wrap(Bye("r"))) is Verdict.GAP
    assert here.admit(there.wrap(Bye("r"))) is Verdict.FRESH


def test_a_restarted_peer_is_new_whatever_its_numbers() -> None:
    """Another incarnation is NEW though its numbers begin anew, and knows nothing of what the former one received."""
    here, there = two()
    there.admit(here.wrap(Bye("r")))
    here.admit(there.wrap(Bye("r")))
    assert here.confirmed == 2
    assert here.admit(Link(b"other").wrap(Bye("r"))) is Verdict.NEW
    assert here.confirmed == 0


def test_probes_are_outside_the_order() -> None:
    """Message number 0 is never a gap, never fresh, and changes nothing."""
    here, there = two()
    assert here.admit(Envelope(b"there", b"here", 0, 0, Probe())) is Verdict.REPEAT
    assert here.admit(Envelope(b"stranger", b"", 0, 0, Probe())) is Verdict.REPEAT
    assert here.admit(there.wrap(Bye("r"))) is Verdict.FRESH


def test_a_peer_confirms_what_it_received() -> None:
    """`confirmed` is the highest number of ours that the peer has said it received."""
    here, there = two()
    here.wrap(Bye("lost"))
    there.admit(here.wrap(Bye("r")))
    here.admit(there.wrap(Bye("r")))
    assert here.confirmed == 3


def test_what_a_former_process_was_told_is_not_confirmed_to_this_one() -> None:
    """A message addressed to a former incarnation of this role confirms nothing."""
    here, there = Link(b"here"), Link(b"there")
    for _ in range(5):
        there.admit(Link(b"former").wrap(Bye("r")))
    envelope = there.wrap(Bye("r"))
    assert envelope.addressee == b"former"
    here.wrap(Bye("r"))
    here.admit(envelope)
    assert here.confirmed == 0


@given(st.lists(st.sampled_from(["pass", "lose", "double", "late"]), max_size=40))
def test_whatever_the_network_does_each_message_is_taken_at_most_once_in_order(fates: list[str]) -> None:
    """Taken messages are ascending, none twice, and every loss before a taken one shows as a gap."""
    here, there = two()
    late: list[Envelope] = []
    taken: list[int] = []
    for fate in fates:
        envelope = there.wrap(Bye("r"))
        arriving = {"pass": [envelope], "lose": [], "double": [envelope] * 2, "late": []}[fate]
        for one in (*arriving, *late):
            expected = here.received + 1
            verdict = here.admit(one)
            if verdict is not Verdict.REPEAT:
                taken.append(one.number)
                assert (verdict is Verdict.GAP) == (one.number > expected)
        late = [envelope] if fate == "late" else []
    assert taken == sorted(set(taken))
