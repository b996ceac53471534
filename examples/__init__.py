"""Programs to start from; each runs from the project's root as ``python -m examples.NAME``."""
