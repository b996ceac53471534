"""Tests of the class API: one file a role."""
