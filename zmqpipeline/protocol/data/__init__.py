"""What the machines count with: ranges of numbers, runs of payloads, digests of keys, what is collected."""
