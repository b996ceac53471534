"""Benchmarks: each compares the library with plain pyzmq in one run, and checks every answer."""
