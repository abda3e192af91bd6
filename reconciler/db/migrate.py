"""
Bring a database to the schema of this program.

The runner is our own, because what it must do is this page: numbered SQL
files, one transaction, one lock, one table. The libraries for it either
bring an ORM or a second driver, or keep their table outside the schema and
split files into statements by rules of their own; here the server parses
the files, and either all of them hold afterwards or none.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from reconciler.db.pool import connect, store_errors
from reconciler.errors import Invalid, RightsMissing, SchemaMismatch, StoreError

OLDEST_SERVER = 150000
"""The oldest PostgreSQL whose features the schema uses, as in `server_version_num`."""

GROUP_ROLES = ("reconciler_daemon", "reconciler_operator", "reconciler_reader", "reconciler_writer")

_LOCK = 0x7265636F6E63696C  # "reconcil": one migration at a time and database


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `migrate` left behind: the mark on every node, the schema's version, and how many files ran."""

    owner: str
    version: int
    applied: int


def _migrations() -> tuple[Migration, ...]:
    found = []
    for file in (files("reconciler.db") / "migrations").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name.replace("_", " "), file.read_bytes()))
    return tuple(sorted(found, key=lambda migration: migration.number))


MIGRATIONS = _migrations()
KNOWN_VERSION = MIGRATIONS[-1].number


async def migrate(dsn: str, owner: str | None, report: Callable[[str], None]) -> Migrated:
    """
    Apply what is missing, in one transaction, and tell `report` each step.

    Safe to repeat and to run from several hosts at once: the later one waits
    and finds nothing to do. `owner` is our mark on every node, chosen once;
    None takes the one there is, or invents one. Raises Invalid for another
    owner than the database has, SchemaMismatch for a schema newer than this
    program, RightsMissing with the statements a superuser has to run, and
    StoreUnavailable.
    """
    async with await connect(dsn) as connection:
        async with store_errors():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            found = await _version(connection)
            if found > KNOWN_VERSION:
                raise SchemaMismatch(found, KNOWN_VERSION)
            await _create_roles(connection, report)
            applied = await _apply(connection, found, report)
            mark = await _claim(connection, owner, report)
        report("nothing to do" if not applied else f"the schema is at version {KNOWN_VERSION}")
    return Migrated(mark, KNOWN_VERSION, applied)


async def check_schema(connection: psycopg.AsyncConnection) -> None:
    """Raise SchemaMismatch when the database is not at KNOWN_VERSION; one without our schema is at 0."""
    async with store_errors():
        found = await _version(connection)
    if found != KNOWN_VERSION:
        raise SchemaMismatch(found, KNOWN_VERSION)


async def check_rights(connection: psycopg.AsyncConnection) -> None:
    """Raise RightsMissing unless this role may do the daemon's work, by membership or by itself."""
    cursor = await connection.execute(
        """SELECT current_user, bool_and(has_table_privilege('reconciler.' || name, 'INSERT, UPDATE'))
             FROM unnest(ARRAY['leases', 'promises', 'node_status']) AS name GROUP BY 1"""
    )
    ((user, may),) = await cursor.fetchall()
    if not may:
        raise RightsMissing(f"permission denied for role {user}: GRANT reconciler_daemon TO {user}")


async def _version(connection: psycopg.AsyncConnection) -> int:
    cursor = await connection.execute("SELECT to_regclass('reconciler.migrations') IS NULL")
    if await cursor.fetchone() == (True,):
        return 0
    cursor = await connection.execute("SELECT coalesce(max(number), 0) FROM reconciler.migrations")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _create_roles(connection: psycopg.AsyncConnection, report: Callable[[str], None]) -> None:
    cursor = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regrole(name) IS NULL", (list(GROUP_ROLES),)
    )
    missing = [name for (name,) in await cursor.fetchall()]
    if not missing:
        return
    cursor = await connection.execute(
        "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    )
    if await cursor.fetchone() != (True,):
        statements = " ".join(f"CREATE ROLE {name} NOLOGIN;" for name in missing)
        raise RightsMissing(f"this user may not create roles; run once as a superuser: {statements}")
    report(f"create the roles {', '.join(missing)}")
    await connection.execute((files("reconciler.db") / "roles.sql").read_bytes())


async def _apply(connection: psycopg.AsyncConnection, found: int, report: Callable[[str], None]) -> int:
    if connection.info.server_version < OLDEST_SERVER:
        raise StoreError(
            f"PostgreSQL {OLDEST_SERVER // 10000} or newer is needed, "
            f"this is {connection.info.server_version // 10000}"
        )
    due = [migration for migration in MIGRATIONS if migration.number > found]
    for migration in due:
        report(f"apply {migration.number}: {migration.name}")
        await connection.execute(migration.text)
        await connection.execute(
            "INSERT INTO reconciler.migrations (number, name) VALUES (%s, %s)",
            (migration.number, migration.name),
        )
    return len(due)


async def _claim(
    connection: psycopg.AsyncConnection, owner: str | None, report: Callable[[str], None]
) -> str:
    cursor = await connection.execute("SELECT owner FROM reconciler.source")
    row = await cursor.fetchone()
    if row is not None:
        if owner not in {None, row[0]}:
            raise Invalid("owner", owner, f"this database is {row[0]!r} for ever")
        return str(row[0])
    mark = f"r-{secrets.token_hex(3)}" if owner is None else owner
    try:
        await connection.execute("INSERT INTO reconciler.source (owner) VALUES (%s)", (mark,))
    except psycopg.errors.CheckViolation:
        raise Invalid("owner", mark, "1 to 32 of a-z, 0-9 and -") from None
    report(f"the mark on every node is {mark}")
    return mark
