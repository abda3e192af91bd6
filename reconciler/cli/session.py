"""What a command works with: the configuration, one connection to the database, and who asks."""

import asyncio
import functools
import getpass
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from reconciler import logs
from reconciler.config import Config, load
from reconciler.db.migrate import check_schema
from reconciler.db.pool import Connection, connect, open_pool, store_errors
from reconciler.desired.reader import DesiredReader
from reconciler.desired.writer import Operator
from reconciler.model import Owner

P = ParamSpec("P")
Answer = TypeVar("Answer")


def asynchronous(command: Callable[P, Coroutine[Any, Any, Answer]]) -> Callable[P, Answer]:
    """Make a command of a coroutine function."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> Answer:
        return asyncio.run(command(*args, **kwargs))

    return run


def load_config(path: Path | None) -> Config:
    """Return the configuration at `path`, secrets included; raises ConfigError."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    credentials = Path(directory) if directory else None
    return load(path, os.environ, credentials)


class Session:
    """One operator at one database, whose schema is the one that this program knows."""

    def __init__(self, config: Config, connection: Connection, stack: AsyncExitStack, actor: str) -> None:
        self.config = config
        self.connection = connection
        self.operator = Operator(connection, actor)
        self._stack = stack
        self._reader: DesiredReader | None = None
        self._owner: Owner | None = None

    async def reader(self) -> DesiredReader:
        """Return the daemon's own way of reading the desired state."""
        if self._reader is None:
            database = self.config.database
            pool = await open_pool(
                database.dsn.get_secret_value(),
                database.pool_size,
                prepared_statements=database.prepared_statements,
                connect_seconds=database.connect_timeout_seconds,
                statement_seconds=database.statement_timeout_seconds,
            )
            self._stack.push_async_callback(pool.close, timeout=1)
            self._reader = DesiredReader(pool)
        return self._reader

    async def owner(self) -> Owner:
        """Return our mark on every node."""
        if self._owner is None:
            self._owner = await (await self.reader()).owner()
        return self._owner


@asynccontextmanager
async def open_session(path: Path | None) -> AsyncIterator[Session]:
    """
    Read the configuration and connect.

    Raises ConfigError, StoreUnavailable, and SchemaMismatch for another
    schema than this program knows.
    """
    config = load_config(path)
    logs.configure("error", config.log.format)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await connect(config.database.dsn.get_secret_value()))
        await connection.set_autocommit(True)
        await check_schema(connection)
        who = actor()
        async with store_errors():  # the audit trail tells by this who it was
            await connection.execute(
                "SELECT set_config('application_name', %s, false)", (f"reconciler {who}",)
            )
        yield Session(config, connection, stack, who)


def actor() -> str:
    """Return who writes, for the history: the person behind sudo, where there is one."""
    try:
        login = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        login = f"uid {os.getuid()}"
    return f"cli:{login}"
