"""Tasks, worker, collector and distributor as classes, each in a file of its own."""
