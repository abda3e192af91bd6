import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from reconciler.demo import postgres
from reconciler.demo.postgres import EmbeddedPostgres, packaged_binaries

PARENT = """
import sys
from reconciler.demo import postgres
from reconciler.demo.postgres import EmbeddedPostgres, packaged_binaries
with EmbeddedPostgres() as server:
    print(server.dsn, server.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A program that runs a server until its input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with child:
        yield child
        child.kill()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_its_parent(parent, sign):
    assert parent.stdout
    dsn, pid = parent.stdout.readline().rsplit(maxsplit=1)
    server = psutil.Process(int(pid))
    psycopg.connect(dsn).close()

    os.killpg(parent.pid, sign)

    with suppress(psutil.NoSuchProcess):
        server.wait(20)
    assert not server.is_running()
    parent.wait(20)
    root = Path(str(conninfo_to_dict(dsn)["host"]))
    assert root.exists() == (sign == signal.SIGKILL)  # nobody is left to delete it
    shutil.rmtree(root, ignore_errors=True)


def test_rows_and_address_survive_a_stop_a_crash_and_a_restart():
    with EmbeddedPostgres(tcp=True) as server:
        before = (server.dsn, server.tcp_dsn)
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE kept (n int)")
        for number, way in enumerate((server.stop, server.kill, server.restart)):
            with psycopg.connect(server.tcp_dsn) as connection:
                connection.execute("INSERT INTO kept VALUES (%s)", (number,))
            way()
            server.start()
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SELECT n FROM kept ORDER BY n").fetchall() == [(0,), (1,), (2,)]
        assert (server.dsn, server.tcp_dsn) == before


def test_a_password_is_asked_for_and_nothing_is_left_behind():
    with EmbeddedPostgres(tcp=True) as server:
        root = Path(str(conninfo_to_dict(server.dsn)["host"]))
        for dsn in (server.dsn, server.tcp_dsn):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(dsn, password="wrong")
        pid = server.pid
        assert (root / "data").exists()
    assert not root.exists()
    assert not psutil.pid_exists(pid)


def test_settings_reach_the_server():
    with (
        EmbeddedPostgres({"max_connections": "37"}) as server,
        psycopg.connect(server.dsn) as connection,
    ):
        assert connection.execute("SHOW max_connections").fetchone() == ("37",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_as_root_the_server_runs_as_nobody():
    with EmbeddedPostgres() as server:
        owner = psutil.Process(server.pid).username()
    assert owner == ("nobody" if os.geteuid() == 0 else psutil.Process().username())


def test_binaries_in_a_closed_folder_are_copied_for_the_server(monkeypatch, tmp_path):
    package = packaged_binaries().parents[1]
    for part in (packaged_binaries().parent, package.with_suffix(".libs")):
        shutil.copytree(part, tmp_path / part.relative_to(package.parent), symlinks=True)
    tmp_path.chmod(0o700)
    closed = tmp_path / packaged_binaries().relative_to(package.parent)
    monkeypatch.setattr(postgres, "packaged_binaries", lambda: closed)

    with EmbeddedPostgres() as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
