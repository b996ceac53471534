"""What all tests may use: pytest's way to test plugins, an order by chance, bytecode, and the library's own plugin."""

pytest_plugins = ["pytester", "tests.order", "tests.bytecode", "zmqpipeline.pytest_plugin"]
