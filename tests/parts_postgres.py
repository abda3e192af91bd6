"""
A real PostgreSQL for the tests, and a database of its own for each of them.

The server is a container where a Docker engine answers, else the one that
RECONCILER_TEST_DSN names as a superuser, else the embedded one.
"""

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reconciler.db.migrate import migrate
from reconciler.demo.postgres import EmbeddedPostgres

IMAGE = "postgres:18-alpine"
MAY_END = "-c reconciler.may_end=1000000"
"""Tests write their rows as the superuser and end as many at once as they like; no role of ours may."""
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
ROLES = ("daemon", "writer", "operator", "reader")


@dataclass(frozen=True)
class Database:
    """One database of one test."""

    name: str
    dsn: str = field(repr=False)
    password: str = field(repr=False)
    prefix: str

    def dsn_as(self, role: str) -> str:
        """The DSN of a login role that is a member of `reconciler_<role>` and of nothing else."""
        return make_conninfo(self.dsn, user=f"{self.prefix}_{role}", password=self.password, options="")

    async def connect(self, role: str | None = None) -> psycopg.AsyncConnection:
        """A connection in autocommit, as the superuser or as a member of `reconciler_<role>`."""
        dsn = self.dsn if role is None else self.dsn_as(role)
        return await psycopg.AsyncConnection.connect(dsn, autocommit=True)


class Cluster:
    """A running server, and what this test session has made on it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._prefix = f"test_{secrets.token_hex(4)}"
        self._password = secrets.token_hex(12)
        self._template: str | None = None
        self._made = 0

    def execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def create(self, *, migrated: bool) -> Database:
        template = self._migrated_template() if migrated else "template0"
        self._made += 1
        name = f"{self._prefix}_{self._made}"
        self.execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self._database(name)

    def drop(self, database: Database) -> None:
        self.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", database.name)

    def close(self) -> None:
        if self._template is not None:
            self.execute("DROP DATABASE {} WITH (FORCE)", self._template)
            for role in ROLES:
                self.execute("DROP ROLE {}", f"{self._prefix}_{role}")

    def _database(self, name: str) -> Database:
        dsn = make_conninfo(self.dsn, dbname=name, options=MAY_END)
        return Database(name, dsn, self._password, self._prefix)

    def _migrated_template(self) -> str:
        if self._template is None:
            name = f"{self._prefix}_template"
            self.execute("CREATE DATABASE {} TEMPLATE template0", name)
            asyncio.run(migrate(self._database(name).dsn, "test", lambda _: None))
            self._template = name
            for role in ROLES:
                self.execute(
                    f"CREATE ROLE {{}} LOGIN PASSWORD '{self._password}' IN ROLE {{}}",
                    f"{self._prefix}_{role}",
                    f"reconciler_{role}",
                )
        return self._template


def _docker_answers() -> bool:
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415 - slow, and few hosts need it

    with suppress(Exception):  # whatever it raises, no engine answered
        return bool(DockerClient().client.ping())
    return False


def _container(stack: ExitStack) -> str:
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - slow, and few need it

    settings = " ".join(f"-c {name}={value}" for name, value in {**QUICK, "max_connections": "200"}.items())
    container = PostgresContainer(IMAGE, username="postgres", password=secrets.token_hex(12), driver=None)
    return str(stack.enter_context(container.with_command(settings)).get_connection_url())


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One server for the session and worker, or databases of their own on a given one."""
    with ExitStack() as stack:
        given = os.environ.get("RECONCILER_TEST_DSN")
        if _docker_answers():
            dsn = _container(stack)
        else:
            dsn = given or stack.enter_context(EmbeddedPostgres(QUICK)).dsn
        cluster = Cluster(dsn)
        stack.callback(cluster.close)
        yield cluster


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A migrated database whose owner mark is `test`."""
    made = cluster.create(migrated=True)
    yield made
    cluster.drop(made)


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """A database in which nothing of ours was ever made."""
    made = cluster.create(migrated=False)
    yield made
    cluster.drop(made)
