"""What all tests may use: pytest's way to test plugins, an order by chance, marks, bytecode, our own plugin."""

pytest_plugins = ["pytester", "tests.order", "tests.marks", "tests.bytecode", "zmqpipeline.pytest_plugin"]
