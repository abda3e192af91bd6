"""The real parts that the tests run on."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

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

ONE_WORKER = "test_systemd.py"
"""These tests share a machine that takes long to make, so one worker has all of them; it begins with them."""


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.endswith(ONE_WORKER) else nodeid


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _Scheduling(config, log)
