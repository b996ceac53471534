"""The tests, laid out as the folders of the package are."""
