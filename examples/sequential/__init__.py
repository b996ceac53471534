"""The same work as in `singlethread` and `multithread`, in one plain loop: what they are measured against."""
