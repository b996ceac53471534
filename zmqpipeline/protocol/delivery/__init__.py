"""From the source to the worker: which items are where, who gets them, what is tried again, what has failed."""
