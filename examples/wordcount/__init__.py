"""How often each word occurs in the texts below a folder: a map of texts to counts, gathered by folder."""
