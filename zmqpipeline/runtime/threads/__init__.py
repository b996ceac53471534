"""Threads of user code: workers' pools, sources, what the collector calls."""
