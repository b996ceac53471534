"""What all tests may use: pytest's way to test plugins, an order by chance, marks, bytecode, our own plugin."""

pytest_plugins = [
    "pytester",
    "tests.support.order",
    "tests.support.marks",
    "tests.support.bytecode",
    "zmqpipeline.pytest_plugin",
]
