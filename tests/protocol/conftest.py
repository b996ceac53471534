"""Hypothesis for all tests of the cellar: no time limit for one example, since other processes share the machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("zmqpipeline", deadline=None)
settings.load_profile("zmqpipeline")
