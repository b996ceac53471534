"""How often each word occurs in the texts below a folder, by two tasks of which the second needs all of the first."""
