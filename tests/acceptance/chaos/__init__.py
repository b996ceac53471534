"""Chaos: whole runs in real processes, each with one sort of trouble drawn from its seed, and a checker at the end."""
