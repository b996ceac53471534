"""One task, a worker with one thread, and a collector with a stopwatch."""
