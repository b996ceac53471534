"""What all tests may use: pytest's way to test plugins, an order by chance, and the library's own plugin."""

pytest_plugins = ["pytester", "tests.order", "zmqpipeline.pytest_plugin"]
