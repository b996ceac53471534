"""Facts that are looked up once for each run, and are at hand in every role."""
