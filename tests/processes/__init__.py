"""Tests of what starts and restarts processes."""
