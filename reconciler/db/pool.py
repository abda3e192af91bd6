"""
Connections, and the one place where PostgreSQL's errors become ours.

Texts of libpq are not passed on when they may hold a secret: a DSN that is
not quite right is quoted by them in pieces, its password among them, and a
refused row is quoted with its credential. Such errors also lose their
cause, because a logged traceback prints it.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolClosed, PoolTimeout

from reconciler.errors import ConfigError, Fault, RightsMissing, StoreError, StoreUnavailable

CONNECT_SECONDS = 10

# The pool logs each failed attempt with libpq's text; the daemon reports the outage in its own words.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


async def connect(dsn: str) -> psycopg.AsyncConnection:
    """
    Open one connection; raise ConfigError for a DSN that cannot be read, else StoreUnavailable.

    A refused password is StoreUnavailable too: libpq gives no code for it,
    and a daemon that meets it during a change of passwords should try again.
    """
    check_dsn(dsn)
    with store_errors():
        return await psycopg.AsyncConnection.connect(dsn, connect_timeout=CONNECT_SECONDS)


def check_dsn(dsn: str) -> None:
    """Raise ConfigError when libpq cannot read `dsn`, which is not shown."""
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        fault = Fault("database.dsn", "(not shown)", "a PostgreSQL connection string or URI")
        raise ConfigError([fault]) from None


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what psycopg raises into StoreUnavailable, RightsMissing or StoreError."""
    try:
        yield
    except (PoolTimeout, PoolClosed) as error:
        raise StoreUnavailable("no connection to PostgreSQL came free in time") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise RightsMissing(_words(error)) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise StoreError(f"{_words(error)}: run `reconciler migrate`") from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise StoreError(f"PostgreSQL refused a row: {type(error).__name__}") from None
    except psycopg.OperationalError as error:
        raise StoreUnavailable(_unavailable(error)) from None
    except psycopg.Error as error:
        raise StoreError(_words(error)) from error


def _words(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__


def _unavailable(error: psycopg.OperationalError) -> str:
    if error.diag.message_primary:
        return error.diag.message_primary
    said = re.search(r"FATAL:\s+(.+)", str(error)) or _REASONS.search(str(error))
    return f"PostgreSQL cannot be reached: {said[said.lastindex or 0] if said else 'no reason given'}"


_REASONS = re.compile(
    r"connection refused|timeout expired|could not translate host name|name or service not known|"
    r"no such file or directory|permission denied|server closed the connection|network is unreachable|"
    r"no route to host|ssl error|certificate verify failed|connection reset",
    re.IGNORECASE,
)
