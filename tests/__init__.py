"""The tests, laid out as the storeys of the house are."""
