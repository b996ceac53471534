"""One worker process with ten threads, each with something of its own."""
