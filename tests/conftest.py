"""The real parts that the tests run on."""

pytest_plugins = [
    "tests.parts_postgres",
    "tests.parts_prometheus",
    "tests.parts_xray",
    "tests.parts_cli",
    "tests.parts_http",
    "tests.parts_writer",
    "tests.placing",
    "tests.world",
    "tests.parts_machine",
]
