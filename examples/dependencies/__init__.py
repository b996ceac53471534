"""Four tasks in the order that their dependencies ask for."""
