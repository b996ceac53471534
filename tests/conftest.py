"""What all tests may use: pytest's way to test plugins, an order by chance, marks, bytecode, patience, our plugin."""

pytest_plugins = [
    "pytester",
    "tests.support.order",
    "tests.support.marks",
    "tests.support.bytecode",
    "tests.support.patience",
    "zmqpipeline.pytest_plugin",
]
