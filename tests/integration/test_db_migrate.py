import asyncio
import subprocess
import sys
import traceback

import pytest
from psycopg.conninfo import make_conninfo

from reconciler.db import migrate as migrations
from reconciler.db.migrate import KNOWN_VERSION, Migrated, check_schema, migrate
from reconciler.db.pool import connect, store_errors
from reconciler.errors import (
    ConfigError,
    Invalid,
    ReconcilerError,
    RightsMissing,
    SchemaMismatch,
    StoreError,
    StoreUnavailable,
)
from tests.rows import one

MIGRATE = """
import asyncio, os
from reconciler.db.migrate import migrate
print(asyncio.run(migrate(os.environ["DSN"], None, lambda _: None)).owner)
"""


def quiet(_: str) -> None:
    pass


async def test_an_empty_database_gets_every_file_and_the_given_mark(empty_database):
    steps: list[str] = []

    done = await migrate(empty_database.dsn, "shop-1", steps.append)

    assert done == Migrated("shop-1", KNOWN_VERSION, KNOWN_VERSION)
    assert "apply 1: initial" in steps
    assert "the mark on every node is shop-1" in steps
    assert steps[-1] == f"the schema is at version {KNOWN_VERSION}"


async def test_a_second_run_finds_nothing_to_do(database):
    steps: list[str] = []

    assert await migrate(database.dsn, None, steps.append) == Migrated("test", KNOWN_VERSION, 0)
    assert steps == ["nothing to do"]


async def test_without_a_given_mark_one_is_invented(empty_database):
    done = await migrate(empty_database.dsn, None, quiet)

    assert done.owner.startswith("r-")
    assert len(done.owner) == 8


async def test_two_runs_at_once_apply_each_file_once(empty_database):
    both = await asyncio.gather(*(migrate(empty_database.dsn, None, quiet) for _ in range(2)))

    assert sorted(done.applied for done in both) == [0, KNOWN_VERSION]
    assert both[0].owner == both[1].owner


async def test_two_programs_at_once_agree_on_the_mark(empty_database):
    programs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, env={"DSN": empty_database.dsn}, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [await program.communicate() for program in programs]

    assert [program.returncode for program in programs] == [0, 0]
    assert said[0] == said[1]


async def test_another_mark_is_refused_and_both_are_named(database):
    with pytest.raises(Invalid, match=r"'other'.*'test'"):
        await migrate(database.dsn, "other", quiet)


@pytest.mark.parametrize("mark", ["", "UPPER", "a b", "x" * 33, "k1@x"])
async def test_a_mark_that_would_not_survive_folding_is_refused(empty_database, mark):
    with pytest.raises(Invalid, match="owner"):
        await migrate(empty_database.dsn, mark, quiet)
    async with await empty_database.connect() as connection:
        assert await one(connection, "SELECT to_regnamespace('reconciler')") is None


async def test_a_failing_file_leaves_nothing_behind(empty_database, monkeypatch):
    broken = migrations.Migration(KNOWN_VERSION + 1, "broken", b"SELECT 1 / 0")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))

    with pytest.raises(StoreError):
        await migrate(empty_database.dsn, None, quiet)
    async with await empty_database.connect() as connection:
        assert await one(connection, "SELECT to_regnamespace('reconciler')") is None


async def test_the_known_schema_is_accepted(database):
    async with await database.connect("writer") as connection:
        await check_schema(connection)


async def test_a_missing_schema_is_version_zero(empty_database):
    async with await empty_database.connect() as connection:
        with pytest.raises(SchemaMismatch) as caught:
            await check_schema(connection)
    assert (caught.value.found, caught.value.known) == (0, KNOWN_VERSION)


@pytest.mark.parametrize("difference", [-1, 1])
async def test_an_older_and_a_newer_schema_are_refused_with_both_numbers(database, difference):
    async with await database.connect() as connection:
        if difference < 0:
            await connection.execute("DELETE FROM reconciler.migrations WHERE number = %s", (KNOWN_VERSION,))
        else:
            await connection.execute(
                "INSERT INTO reconciler.migrations VALUES (%s, 'later')", (KNOWN_VERSION + 1,)
            )
        with pytest.raises(SchemaMismatch) as caught:
            await check_schema(connection)

    assert str(KNOWN_VERSION) in str(caught.value)
    assert str(KNOWN_VERSION + difference) in str(caught.value)


async def test_a_newer_schema_is_not_migrated(database):
    async with await database.connect() as connection:
        await connection.execute("INSERT INTO reconciler.migrations VALUES (999, 'later')")
    with pytest.raises(SchemaMismatch, match="999"):
        await migrate(database.dsn, None, quiet)


@pytest.mark.usefixtures("database")  # makes the roles
async def test_a_user_that_may_not_create_roles_is_told_the_statements(empty_database, monkeypatch):
    async with await empty_database.connect() as connection:
        await connection.execute("GRANT CREATE ON DATABASE " + empty_database.name + " TO PUBLIC")
    monkeypatch.setattr(migrations, "GROUP_ROLES", ("reconciler_daemon", "reconciler_absent"))

    with pytest.raises(RightsMissing, match=r"CREATE ROLE reconciler_absent NOLOGIN;$"):
        await migrate(empty_database.dsn_as("writer"), None, quiet)


@pytest.mark.usefixtures("database")  # makes the roles
async def test_a_user_without_superuser_rights_can_migrate_once_the_roles_exist(empty_database):
    async with await empty_database.connect() as connection:
        await connection.execute("GRANT CREATE ON DATABASE " + empty_database.name + " TO PUBLIC")

    await migrate(empty_database.dsn_as("writer"), "test", quiet)

    async with await empty_database.connect("reader") as connection:
        assert await one(connection, "SELECT owner FROM reconciler.source") == "test"


@pytest.mark.usefixtures("database")  # makes the roles
async def test_a_user_that_may_not_create_a_schema_is_told_so(empty_database):
    with pytest.raises(RightsMissing, match="permission denied for database"):
        await migrate(empty_database.dsn_as("writer"), None, quiet)


async def test_an_older_server_is_refused(empty_database, monkeypatch):
    monkeypatch.setattr(migrations, "OLDEST_SERVER", 990000)
    with pytest.raises(StoreError, match="PostgreSQL 99 or newer is needed"):
        await migrate(empty_database.dsn, None, quiet)


CANARY = "canary-5f1d"

WRONG: dict[str, tuple[dict[str, str | int], type[ReconcilerError], str]] = {
    "nobody listens": ({"host": "127.0.0.1", "port": 1}, StoreUnavailable, "onnection refused"),
    "no such socket": ({"host": "/nonexistent"}, StoreUnavailable, "No such file"),
    "no such host": ({"host": f"{CANARY}.invalid"}, StoreUnavailable, "PostgreSQL cannot be reached"),
    "a port that is none": ({"port": CANARY}, StoreUnavailable, "no reason known"),
    "wrong password": ({}, StoreUnavailable, "password authentication failed"),
    "no such database": ({"dbname": "absent"}, StoreUnavailable, "absent"),
}


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("case", WRONG)
async def test_a_dsn_that_leads_nowhere_is_unavailable_and_its_password_stays_secret(empty_database, case):
    change, kind, words = WRONG[case]
    secret: dict[str, str | int] = {} if case == "no such database" else {"password": CANARY}
    dsn = make_conninfo(empty_database.dsn, **secret | change)

    with pytest.raises(ReconcilerError) as caught:
        await migrate(dsn, None, quiet)

    assert isinstance(caught.value, kind)
    assert words in str(caught.value)
    assert CANARY not in everything_said(caught.value)
    assert empty_database.password not in everything_said(caught.value)


@pytest.mark.parametrize(
    "dsn", [f"host=x password='{CANARY}", f"postgresql://u:{CANARY}@[::1/x", f"{CANARY}"]
)
async def test_a_dsn_that_cannot_be_read_is_a_fault_of_the_configuration_and_not_shown(dsn):
    with pytest.raises(ConfigError) as caught:
        await migrate(dsn, None, quiet)

    assert CANARY not in everything_said(caught.value)


async def test_a_refused_row_is_not_quoted(database):
    credential = "5f1dcafe-0000-4000-8000-000000000001"
    async with await connect(database.dsn) as connection:
        with pytest.raises(StoreError) as caught:
            async with store_errors():
                await connection.execute(
                    "INSERT INTO reconciler.keys (subscription_id, credential) VALUES (1, %s)", (credential,)
                )
        await connection.rollback()
        with pytest.raises(StoreError) as spelled_wrong:
            async with store_errors():
                await connection.execute("SELECT %s::text::uuid", (credential + "x",))

    assert credential not in everything_said(caught.value)
    assert "keys_subscription_id_fkey" in str(caught.value)
    assert credential not in everything_said(spelled_wrong.value)


def test_the_files_are_numbered_without_a_gap():
    assert [migration.number for migration in migrations.MIGRATIONS] == list(range(1, KNOWN_VERSION + 1))
