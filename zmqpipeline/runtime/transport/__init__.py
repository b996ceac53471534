"""Sockets of a role: what they carry, their monitors, and how another thread wakes the loop."""
