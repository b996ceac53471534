"""What all tests may use: pytest's own way to test plugins, and the library's plugin, installed or not."""

pytest_plugins = ["pytester", "zmqpipeline.pytest_plugin"]
