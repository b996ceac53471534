"""Tests of the pure machines; nothing here opens a socket."""
