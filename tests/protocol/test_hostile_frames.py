"""Frames as a hostile peer makes them, into every machine: what passes the decoder is survived."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.frames import KINDS, Forger
from tests.protocol.test_every_event import QUIET, TRIALS
from tests.support.adversarial import RUN, US
from tests.support.machine_fuzz import Trial
from zmqpipeline.errors import WireError
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.allowed import allowed_on

DECODE = codec.Decoder(Options()).decode


def recorded(trial: type[Trial]) -> list[list[bytes]]:
    """What its peers say, as frames."""
    forger = Forger(1, [])
    return [codec.encode(m.Envelope(b"p1", US, 1 + at, 0, forger.body(cls))) for at, cls in enumerate(trial.hears * 3)]


@pytest.mark.parametrize("name", TRIALS)
def test_hostile_frames_are_survived_in_every_scene(name: str) -> None:
    """Garbage, damaged, old and forged frames: refused by the decoder, or by the machine, which stays whole."""
    trial = TRIALS[name]
    old = recorded(trial)

    @QUIET
    @given(scene=st.sampled_from(sorted(trial.scenes())), seed=st.integers(0, 1 << 32), where=st.integers(0, 20))
    def survives(scene: str, seed: int, where: int) -> None:
        one, forger = trial().at(scene), Forger(seed, old, (RUN, RUN, "A", "B") if seed % 2 else ())
        for count in range(12):
            peer = one.peer(where + count % 2)
            try:
                envelope = DECODE(forger.make(forger.rng.choice(KINDS)), allowed_on(peer))
            except WireError:
                continue
            one.happens(e.Received(peer, envelope))
        one.drains()

    survives()
