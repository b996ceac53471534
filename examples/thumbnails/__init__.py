"""Small pictures of large ones: many in a batch, or one on request."""
