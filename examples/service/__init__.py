"""A broker, workers that answer, and a client that asks."""
