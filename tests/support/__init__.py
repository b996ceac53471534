"""What the tests stand on: worlds, scenes, helpers and plugins. No tests."""
