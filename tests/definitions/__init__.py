"""Tests of what an app declares."""
