"""Tests of the commands, without processes; those with are in `acceptance/`."""
