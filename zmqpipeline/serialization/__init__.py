"""User values to bytes and back: msgpack with extension types, and what opens bytes from anybody. Never pickle."""
