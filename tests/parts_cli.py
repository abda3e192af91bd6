"""The command line for tests, as an operator at the database of the test."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

from reconciler.cli import program
from tests.parts_postgres import Database


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which is one JSON document."""
        return json.loads(self.out)


Cli = Callable[..., Awaitable[Said]]


def invoke(*words: str, typed: str = "", env: dict[str, str | None] | None = None) -> Said:
    """Run a command in this process, as another thread may, because it brings its own event loop."""
    try:
        done = CliRunner().invoke(program, words, input=typed, env=env, prog_name="reconciler")
    finally:
        structlog.reset_defaults()  # a command logs errors only; the next test may want more
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def environment(database: Database, tmp_path: Path) -> dict[str, str | None]:
    """The environment of an operator: a configuration with a small budget, and the rights he has."""
    config = tmp_path / "operator.toml"
    config.write_text("[guard]\nfloor = 2\nshare = 0.0\n[node]\ncall_timeout_seconds = 5.0\n")
    return {"RECONCILER_CONFIG": str(config), "RECONCILER_DSN": database.dsn_as("operator")}


@pytest.fixture
def cli(environment: dict[str, str | None]) -> Cli:
    """Run a command: `said = await cli("user", "add", "Anna")`; `typed` is what stands on its input."""

    async def run(*words: str, typed: str = "") -> Said:
        return await asyncio.to_thread(invoke, *words, typed=typed, env=environment)

    return run
