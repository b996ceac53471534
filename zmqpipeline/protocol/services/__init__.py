"""Requests and replies: the machines of the broker and of the client."""
