"""Setting up: the configuration, the schema, and a database that is not as it should be."""

import asyncio
import os
import signal
import stat
import subprocess
import sys

import pytest

from reconciler.db.migrate import KNOWN_VERSION
from reconciler.demo.xray import free_port
from tests.parts_cli import invoke


def test_init_writes_a_private_file_that_is_sound_and_is_not_overwritten(tmp_path):
    file = tmp_path / "new.toml"

    assert invoke("init", "--output", str(file)).code == 0
    file.write_text(file.read_text() + "\n# mine\n")
    again = invoke("init", "--output", str(file))

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert again.code == 1
    assert "exists already; --force overwrites it" in again.err
    assert "# mine" in file.read_text()
    checked = invoke("--config", str(file), "check-config", env={"RECONCILER_DSN": "host=nowhere"})
    assert (checked.code, checked.err) == (0, "")

    file.chmod(0o644)
    assert invoke("init", "--output", str(file), "--force").code == 0
    assert "# mine" not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_init_into_a_folder_that_is_not_there_is_a_line(tmp_path):
    said = invoke("init", "--output", str(tmp_path / "no" / "new.toml"))

    assert said.code == 1
    assert "No such file" in said.err


def test_check_config_can_judge_the_file_alone(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text("[cycle]\nconcurrency = 3\n")
    environ = {"RECONCILER_DSN": None, "CREDENTIALS_DIRECTORY": str(tmp_path)}

    assert invoke("--config", str(file), "check-config", env=environ).code == 78
    assert invoke("--config", str(file), "check-config", "--file-only", env=environ).code == 0
    file.write_text("[cycle]\nconcurrency = 0\n")
    said = invoke("--config", str(file), "check-config", "--file-only", env=environ)
    assert (said.code, said.err.count("\n")) == (78, 1)
    assert "cycle.concurrency = 0" in said.err


def test_check_config_tells_all_faults_at_once(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text('[guard]\nshare = 2.0\nflour = 5\n[lease]\nttl_seconds = "long"\n')

    said = invoke("--config", str(file), "check-config", env={"RECONCILER_DSN": "host=nowhere"})

    assert said.code == 78
    assert len(said.err.splitlines()) == 3
    for key in ("guard.share", "guard.flour", "lease.ttl_seconds"):
        assert key in said.err


def test_a_dsn_that_cannot_be_read_is_a_fault_that_does_not_show_it():
    said = invoke(
        "check-config", env={"RECONCILER_DSN": "postgres//me:hunter2@host", "RECONCILER_CONFIG": None}
    )

    assert said.code == 78
    assert "database.dsn" in said.err
    assert "hunter2" not in said.err


def test_a_configuration_that_is_not_there_is_a_fault(tmp_path):
    assert invoke("--config", str(tmp_path / "none.toml"), "status").code == 78


def test_migrate_tells_each_step_and_is_safe_to_repeat(empty_database):
    env: dict[str, str | None] = {"RECONCILER_DSN": empty_database.dsn, "RECONCILER_CONFIG": None}

    before = invoke("status", env=env)
    first = invoke("migrate", "--owner", "shop-1", env=env)
    second = invoke("migrate", "--json", env=env)
    other = invoke("migrate", "--owner", "shop-2", env=env)

    assert before.code == 78
    assert "version 0" in before.err
    assert f"the schema is at version {KNOWN_VERSION}" in first.out
    assert "shop-1" in first.out
    document = second.document
    assert (document["owner"], document["version"], document["applied"]) == ("shop-1", KNOWN_VERSION, 0)
    assert other.code == 1
    assert "shop-1" in other.err
    assert invoke("status", env=env).code == 0


def test_a_mark_that_cannot_stand_on_a_node_is_refused(empty_database):
    env: dict[str, str | None] = {"RECONCILER_DSN": empty_database.dsn, "RECONCILER_CONFIG": None}

    assert invoke("migrate", "--owner", "Shop 1", env=env).code == 1
    assert invoke("status", env=env).code == 78


async def test_a_newer_schema_is_refused_with_both_numbers(database, cli):
    async with await database.connect() as sql:
        await sql.execute("INSERT INTO reconciler.migrations (number, name) VALUES (999, 'later')")

    said = await cli("status")

    assert said.code == 78
    assert "999" in said.err
    assert str(KNOWN_VERSION) in said.err


@pytest.mark.parametrize("role", ["reader", "daemon", "writer"])
async def test_a_role_without_rights_is_told_so(database, environment, role):
    environment["RECONCILER_DSN"] = database.dsn_as(role)

    said = await asyncio.to_thread(
        invoke, "node", "add", "fra-1", "--api", "h:1", "--inbound", "in:vless", env=environment
    )

    assert said.code == 78
    assert "permission denied" in said.err


def test_a_database_that_is_down_is_69_within_seconds():
    said = invoke(
        "status", env={"RECONCILER_DSN": f"host=127.0.0.1 port={free_port()}", "RECONCILER_CONFIG": None}
    )

    assert said.code == 69
    assert said.err.startswith("reconciler: PostgreSQL cannot be reached")


async def test_ctrl_c_where_a_number_is_asked_for_changes_nothing(cli, environment):
    await cli("user", "add", "Anna")
    for _ in range(2):
        await cli("grant", "name:Anna", "--days", "3")

    given = {name: value for name, value in environment.items() if value}
    child = await asyncio.to_thread(_interrupted_at_its_question, given)

    assert child.returncode == 130
    assert "Traceback" not in (child.stderr or "")
    assert {row["bucket"] for row in (await cli("user", "list", "--json")).document["subscriptions"]} == {
        "expiring_in_7d"
    }


def _interrupted_at_its_question(given):
    command = [sys.executable, "-m", "reconciler", "revoke", "--user", "name:Anna"]
    with subprocess.Popen(
        command,
        env=os.environ | given,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        try:
            assert child.stderr.read(4) == "Type"
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=20)
        finally:
            child.kill()
    return subprocess.CompletedProcess(command, child.returncode, stderr=said)
