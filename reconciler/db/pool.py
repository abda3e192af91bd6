"""
Connections, and the one place where PostgreSQL's errors become ours.

What libpq says is not passed on where it may hold a secret: a DSN that is not
quite right is quoted in pieces, its password among them, and a refused row is
quoted with its credential. Such errors lose their cause too, because a logged
traceback prints it.
"""

import logging
import re
import select
import time
from types import TracebackType
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from reconciler.errors import ConfigError, Fault, RightsMissing, StoreError, StoreUnavailable

CONNECT_SECONDS = 5
IDLE_SECONDS = 5.0
"""A connection that answered less than so long ago is taken for good when its line is quiet."""

_RETRY_SECONDS = 5.0  # of growing pauses in the pool; then the next caller tries at once
STATEMENT_SECONDS = 30.0
ANSWER_MARGIN_SECONDS = 5.0  # beyond which not even a refusal of the statement has come
_SESSION_SECONDS = {"lock_timeout": 5, "idle_in_transaction_session_timeout": 30}
_LINK: dict[str, str | int] = {
    "application_name": "reconciler",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds that sent bytes may stay unacknowledged
}

# The pool logs each failed attempt with libpq's text; who asks for a connection reports it in our words.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Answer = TypeVar("Answer")


class _Attended(Connection):
    """
    A connection that gives up on a server which takes a question and never answers.

    The server's own timeout ends a slow statement, but not one of a server
    that hangs itself, and the kernel keeps such a connection alive for ever.
    """

    answer_seconds = STATEMENT_SECONDS + ANSWER_MARGIN_SECONDS
    _answered_at = float("-inf")

    async def wait(
        self,
        gen: PQGen[Answer],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's own signature
    ) -> Answer:
        """Wait for the answer, but not for ever; raises OperationalError, and the connection is closed."""
        try:
            answer = await super().wait(gen, interval, timeout or self.answer_seconds)
        except psycopg.OperationalError:
            if timeout is None and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise
        self._answered_at = time.monotonic()
        return answer

    async def check(self) -> None:
        """Raise OperationalError when the server is gone; it is asked only where there is cause to doubt."""
        if time.monotonic() - self._answered_at > IDLE_SECONDS or self._is_stirred():
            await self.execute("")

    def _is_stirred(self) -> bool:
        """Whether something came in unasked, which is how a server says goodbye."""
        line = select.poll()
        line.register(self.pgconn.socket, select.POLLIN)
        return bool(line.poll(0))


Pool = AsyncConnectionPool[Connection]


async def open_pool(
    dsn: str,
    size: int,
    *,
    prepared_statements: bool = True,
    wait_seconds: float = 5.0,
    connect_seconds: int = CONNECT_SECONDS,
    statement_seconds: float = STATEMENT_SECONDS,
) -> Pool:
    """
    Return a pool of at most `size` connections in autocommit, without waiting for the first.

    The database may be down: connections come when it is back, and until then
    whoever asks for one gets PoolTimeout (StoreUnavailable under
    `store_errors`) after `wait_seconds`. Raises ConfigError for a DSN that
    cannot be read. Without `prepared_statements` it works through a
    transaction pooler, which also takes no session settings: their timeouts
    are then to be set on the role, by ALTER ROLE.
    """
    check_dsn(dsn)
    session = _session_settings(dsn, statement_seconds) if prepared_statements else {}

    async def attend(connection: Connection) -> None:
        assert isinstance(connection, _Attended), "the pool makes no other"
        connection.answer_seconds = statement_seconds + ANSWER_MARGIN_SECONDS

    async def check(connection: Connection) -> None:
        assert isinstance(connection, _Attended), "the pool makes no other"
        await connection.check()

    pool: Pool = AsyncConnectionPool(
        make_conninfo(dsn, **_LINK | {"connect_timeout": connect_seconds} | session),
        connection_class=_Attended,
        configure=attend,
        kwargs={"autocommit": True, "prepare_threshold": 0 if prepared_statements else None},
        min_size=min(2, size),
        max_size=size,
        timeout=wait_seconds,
        reconnect_timeout=_RETRY_SECONDS,
        check=check,
        name="reconciler",
        open=False,
    )
    await pool.open(wait=False)
    return pool


async def connect(dsn: str) -> Connection:
    """
    Open one connection; raise ConfigError for a DSN that cannot be read, else StoreUnavailable.

    A refused password is StoreUnavailable too: libpq gives no code for it,
    and a daemon that meets it while passwords change should try again.
    """
    check_dsn(dsn)
    async with store_errors():
        return await psycopg.AsyncConnection.connect(make_conninfo(dsn, **_LINK))


def check_dsn(dsn: str) -> None:
    """Raise ConfigError when libpq cannot read `dsn`, which is not shown."""
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        fault = Fault("database.dsn", "(not shown)", "a PostgreSQL connection string or URI")
        raise ConfigError([fault]) from None


class store_errors:  # noqa: N801 - read as a verb: `with store_errors()`
    """Turn what psycopg raises in a `with` or `async with` block into StoreError and its kinds."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, psycopg.Error):
            raise _ours(error) from (error if _tells_no_secret(error) else None)

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _session_settings(dsn: str, statement_seconds: float) -> dict[str, str]:
    """Add our settings to the `options` that the DSN may have; a later one wins, so the operator's do."""
    ours = [f"-c {name}={seconds}s" for name, seconds in _SESSION_SECONDS.items()]
    ours.append(f"-c statement_timeout={statement_seconds * 1000:.0f}ms")
    theirs = conninfo_to_dict(dsn).get("options")
    return {"options": " ".join([*ours, "-c jit=off", *([str(theirs)] if theirs else [])])}


def _tells_no_secret(error: psycopg.Error) -> bool:
    refused_row = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
    return error.sqlstate is not None and not refused_row


def _ours(error: psycopg.Error) -> StoreError:
    words = error.diag.message_primary or type(error).__name__
    match error:
        case psycopg.errors.InsufficientPrivilege():
            return RightsMissing(words)
        case psycopg.errors.UndefinedTable() | psycopg.errors.InvalidSchemaName():
            return StoreError(f"{words}: run `reconciler migrate`")
        case psycopg.DataError() | psycopg.IntegrityError():
            rule = error.diag.constraint_name or type(error).__name__
            return StoreError(f"PostgreSQL refused a row: {rule}")
        case psycopg.OperationalError() | psycopg.errors.ReadOnlySqlTransaction():
            return StoreUnavailable(words if error.sqlstate else _reason(error))
        case _:
            return StoreError(words)


def _reason(error: psycopg.Error) -> str:
    """Pick the known words out of what libpq says; the rest may be pieces of the DSN."""
    if isinstance(error, PoolTimeout | PoolClosed):
        return "PostgreSQL gave no connection in time"
    said = _SAID.search(str(error))
    return f"PostgreSQL cannot be reached: {said[0].strip() if said else 'no reason known'}"


_SAID = re.compile(
    r"(?<=FATAL:)\s+.+|connection refused|connection reset|connection is closed|connection is lost|"
    r"server closed the connection|terminat\w+|timeout expired|timed out|no such file or directory|"
    r"permission denied|could not translate host name|name or service not known|failure in name resolution|"
    r"no address associated|network is unreachable|no route to host|certificate verify failed|SSL error",
    re.IGNORECASE,
)
