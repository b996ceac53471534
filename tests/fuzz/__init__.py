"""Fuzzed frames to the sockets of real roles, beside a real run: ``python -m tests.fuzz --frames 1000000 --seed 1``."""
