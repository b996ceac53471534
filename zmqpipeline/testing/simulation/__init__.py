"""A user's app in a simulated world: virtual time, a network with faults, the real machines."""
