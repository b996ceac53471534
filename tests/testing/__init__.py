"""Tests of what users test their apps with."""
