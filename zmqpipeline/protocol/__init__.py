"""The pure machines: nothing in this package opens, sleeps, or asks the time."""
