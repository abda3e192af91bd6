"""The daemon as systemd runs it: installed by `make install`, on a booted machine, with a real journal."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.demo.vless import VlessClient
from reconciler.demo.xray import Listener, XrayProcess, free_port
from reconciler.model import Credential
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from tests.parts_machine import DATABASE, SOCKETS, SOURCE, Host, Machine, waited
from tests.parts_postgres import Database
from tests.visits import visit
from tests.world import CALL_SECONDS, VLESS

UNIT = "reconciler.service"
UNITS = (UNIT, "reconciler-migrate.service", "reconciler-http.socket", "reconciler-http.service")
CONFIG = "/etc/reconciler/reconciler.toml"
CREDENTIAL = "/etc/credstore/reconciler.dsn"
CREDENTIAL_OF_MIGRATION = "/etc/credstore/reconciler.migrate_dsn"
DROP_INS = f"/run/systemd/system/{UNIT}.d"
OFTEN = """
[lease]
ttl_seconds = 5.0
renew_seconds = 1.0
[cycle]
full_interval_seconds = 1.0
probe_interval_seconds = 0.5
"""
DOCUMENTS = "/usr/local/share/doc/reconciler"


class Shop:
    """A shop's database and one node, and the installed daemon that is to keep them equal."""

    def __init__(self, host: Host, database: Database, node: XrayProcess) -> None:
        self.host = host
        self.machine: Machine = host.machine
        self.database = database
        self.node = node
        self.sql = psycopg.connect(database.dsn, autocommit=True)
        self.began = time.time()
        self.password = str(conninfo_to_dict(database.dsn_as("daemon"))["password"])
        self.write_dsn(CREDENTIAL, "daemon")
        self.machine.write(CONFIG, OFTEN)
        self.enrol(node)

    def write_dsn(self, path: str, role: str | None = None) -> None:
        dsn = self.database.dsn if role is None else self.database.dsn_as(role)
        self.machine.write(path, make_conninfo(dsn, host=DATABASE), 0o600)

    def enrol(self, node: XrayProcess) -> None:
        api = node.api.replace(str(self.host.sockets), SOCKETS)
        self.sql.execute(
            """WITH node AS (
                 INSERT INTO reconciler.nodes (name, api, state) VALUES (%s, %s, 'active') RETURNING id)
               INSERT INTO reconciler.inbounds (node_id, tag, protocol) SELECT id, %s, 'vless' FROM node""",
            (node.name, api, VLESS.tag),
        )

    def grant(self, number: int) -> list[int]:
        made = self.sql.execute(
            """WITH person AS (INSERT INTO reconciler.users (name) VALUES ('somebody') RETURNING id),
               access AS (INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at)
                 SELECT person.id, now(), now() + interval '1 day' FROM person, generate_series(1, %s)
                 RETURNING id)
               INSERT INTO reconciler.keys (subscription_id, credential)
               SELECT id, gen_random_uuid() FROM access RETURNING id""",
            (number,),
        )
        return [key_id for (key_id,) in made]

    def names(self) -> set[str]:
        """Who is on the node."""

        async def listed() -> set[str]:
            port = XrayNode(self.node.name, self.node.api)
            try:
                return {user.name for user in await list_users(port, VLESS, CALL_SECONDS)}
            finally:
                await port.close()

        return self.machine.inside(listed)

    def until_on_node(self, number: int) -> None:
        waited(lambda: len(self.names()) == number, f"{number} keys are on the node")

    def start(self) -> None:
        self.machine.run("systemctl", "start", UNIT)

    def show(self, name: str) -> str:
        return self.machine.show(UNIT, name)

    def pid(self) -> int:
        """The daemon's process id, as this host sees it."""
        return self.machine.seen(int(self.show("MainPID")))

    def journal(self, *words: str) -> list[dict[str, Any]]:
        """What the unit said in this test."""
        return self.machine.journal(f"--since=@{self.began:.6f}", "-u", UNIT, *words)

    def said(self, event: str, *words: str) -> dict[str, Any]:
        """Wait for a message; return its last entry."""
        found = waited(lambda: self.journal(f"EVENT={event}", *words), f"the journal says {event!r}")
        return found[-1]

    def drop_in(self, *texts: str) -> None:
        for number, text in enumerate(texts):
            self.machine.write(f"{DROP_INS}/{number}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def nothing_of(self, secrets: set[str], *places: str) -> None:
        for place in places:
            assert len(place) > 100, "what says nothing proves nothing"
            assert [secret for secret in secrets if secret in place] == []

    def close(self) -> None:
        self.sql.close()
        if not self.host.postgres.running:
            self.host.postgres.start()
        machine = self.machine
        machine.run("systemctl", "kill", "-s", "CONT", UNIT, check=False)
        machine.run("systemctl", "stop", *UNITS, check=False)
        machine.run("systemctl", "reset-failed", check=False)
        machine.run("rm", "-rf", DROP_INS, CONFIG, CREDENTIAL, CREDENTIAL_OF_MIGRATION)
        machine.run("systemctl", "daemon-reload")


@pytest.fixture
def node(host: Host, tmp_path: Path) -> Iterator[XrayProcess]:
    node = XrayProcess(tmp_path, [Listener(VLESS.tag, "vless", free_port())], name="fra1")
    host.machine.inside(node.start)
    yield node
    node.kill()


@pytest.fixture
def shop(host: Host, node: XrayProcess) -> Iterator[Shop]:
    database = host.cluster.create(migrated=True)
    shop = Shop(host, database, node)
    yield shop
    shop.close()
    host.cluster.drop(database)


def test_it_is_ready_when_every_node_was_tried_and_says_how_it_goes(shop: Shop):
    shop.grant(3)
    shop.machine.write(CONFIG, OFTEN + "[node]\ncall_timeout_seconds = 30.0\n")
    shop.node.freeze()
    shop.machine.run("systemctl", "start", "--no-block", UNIT)
    shop.said("daemon started")
    waited(lambda: shop.show("StatusText"), "it tells how it goes before it is ready")
    assert shop.show("ActiveState") == "activating"

    shop.node.thaw()

    waited(lambda: shop.show("ActiveState") == "active", "the unit is active")
    assert len(shop.names()) == 3, "READY means that the first cycle is over"
    assert shop.said("ready")["NODES"] == "1"
    waited(lambda: shop.show("StatusText") == "1/1 nodes converged", "the line of status")


def test_a_good_configuration_is_taken_at_a_reload_and_a_bad_one_is_refused_by_name(shop: Shop):
    shop.start()
    pid = shop.pid()

    shop.machine.write(CONFIG, OFTEN + "[log]\nlevel = 'warning'\n")
    shop.machine.run("systemctl", "reload", UNIT)
    shop.machine.write(CONFIG, OFTEN)
    shop.machine.run("systemctl", "reload", UNIT)
    shop.said("configuration read again")

    shop.machine.write(CONFIG, OFTEN.replace("interval_seconds = 1.0", "interval_seconds = -1.0"))
    assert "failed" in shop.machine.run("systemctl", "reload", UNIT, check=False)
    fault = "cycle.full_interval_seconds = -1.0: must be a number from 0.2 to 3600"
    told = waited(
        lambda: [entry for entry in shop.journal("-p", "err") if entry["MESSAGE"] == f"reconciler: {fault}"],
        "whoever reloads is told the key, the value and the bound",
    )
    assert told[0]["PRIORITY"] == "3"
    assert shop.journal("EVENT=configuration refused; the old one stays") == [], (
        "the daemon never heard of it"
    )

    shop.machine.run("systemctl", "kill", "-s", "HUP", UNIT)
    refused = shop.said("configuration refused; the old one stays")
    assert (refused["PRIORITY"], refused["KEY"]) == ("3", "cycle.full_interval_seconds")
    waited(lambda: fault in shop.show("StatusText"), "the line of status names the fault")

    shop.machine.write(CONFIG, OFTEN)
    shop.machine.run("systemctl", "reload", UNIT)
    waited(lambda: shop.show("StatusText") == "1/1 nodes converged", "the line of status is well again")
    assert (shop.show("ActiveState"), shop.pid()) == ("active", pid), "the same daemon, all the time"


def test_a_wrong_configuration_ends_the_start_and_is_not_tried_again(shop: Shop):
    shop.machine.write(CONFIG, "[cycle]\nconcurrency = 0\nfull_interval = 3\n")

    said = shop.machine.run("systemctl", "start", UNIT, check=False)

    assert "failed" in said
    assert (shop.show("ActiveState"), shop.show("SubState")) == ("failed", "failed"), "and not auto-restart"
    assert (shop.show("ExecMainStatus"), shop.show("NRestarts")) == ("78", "0")
    assert "cycle.concurrency = 0: must be a whole number from 1 to 1000" in shop.show("StatusText")
    gave_up = shop.journal("EVENT=giving up: starting again would mend nothing")
    assert len(gave_up) == 2, "both faults, each in a line of its own"
    assert {entry["PRIORITY"] for entry in gave_up} == {"3"}


def test_without_a_credential_it_says_which_one_is_missing(shop: Shop):
    shop.machine.run("rm", CREDENTIAL)

    shop.machine.run("systemctl", "start", UNIT, check=False)

    assert shop.show("ExecMainStatus") == "78"
    assert "as the credential `dsn`" in shop.show("StatusText")


def test_a_daemon_that_hangs_is_aborted_by_the_watchdog_and_tells_of_it(shop: Shop):
    shop.drop_in("[Service]\nWatchdogSec=3\nRestartSec=100ms\n")
    shop.grant(1)
    shop.start()
    shop.until_on_node(1)

    os.kill(shop.pid(), signal.SIGSTOP)

    waited(lambda: shop.show("NRestarts") == "1", "it is started again")
    waited(lambda: shop.show("ActiveState") == "active", "it is ready again")
    said = [entry["MESSAGE"] for entry in shop.journal()]
    assert any("Watchdog timeout" in line for line in said)
    assert any("Fatal Python error: Aborted" in line for line in said)
    assert len(shop.names()) == 1


def test_a_killed_daemon_is_started_again_and_changes_nothing(shop: Shop):
    shop.drop_in("[Service]\nRestartSec=100ms\n")
    shop.grant(2)
    shop.start()
    shop.until_on_node(2)

    os.kill(shop.pid(), signal.SIGKILL)

    waited(lambda: shop.show("NRestarts") == "1", "it is started again")
    waited(lambda: shop.show("StatusText") == "1/1 nodes converged", "it works again")
    assert len(shop.journal("EVENT=key added")) == 2, "each key was added once"
    assert shop.journal("EVENT=key removed", "EVENT=key replaced") == []


def test_it_starts_without_a_database_and_goes_on_when_it_comes(shop: Shop):
    shop.grant(2)
    shop.host.postgres.stop()

    shop.start()

    waited(lambda: "database out of reach" in shop.show("StatusText"), "the line of status tells")
    lost = shop.said("database out of reach; nodes stay as they are")
    assert lost["PRIORITY"] == "3"
    shop.host.postgres.start()
    waited(lambda: shop.show("StatusText") == "1/1 nodes converged", "it works")
    assert shop.show("NRestarts") == "0"
    shop.said("database is back")
    assert "REPEATS" not in lost


def test_it_stops_in_time_though_a_node_hangs(shop: Shop):
    shop.start()
    waited(lambda: shop.show("StatusText") == "1/1 nodes converged", "it works")
    shop.node.freeze()

    shop.machine.run("systemctl", "stop", UNIT)

    assert shop.show("Result") == "success", "and neither a timeout nor a signal"
    shop.said("daemon stopped")


def test_secrets_reach_the_daemon_and_nobody_else(shop: Shop):
    keys = shop.grant(2)
    shop.start()
    shop.until_on_node(2)
    secrets = {shop.password}
    for key in keys:
        ((credential,),) = shop.sql.execute("SELECT credential FROM reconciler.keys WHERE id = %s", (key,))
        secrets |= {str(credential), credential.hex}
    pid = shop.pid()

    seen = Path(f"/proc/{pid}/root/run/credentials/{UNIT}/dsn").read_text()
    assert shop.password in seen, "the daemon reads it there"
    machine = shop.machine
    shop.nothing_of(
        secrets,
        machine.run("systemctl", "show", UNIT),
        machine.run("systemctl", "status", "--full", "--lines=1000", UNIT),
        machine.run("systemctl", "cat", UNIT),
        machine.run("journalctl", "-o", "export", f"--since=@{shop.began:.6f}"),
        Path(f"/proc/{pid}/environ").read_text(),
        machine.run("ps", "axww", "-o", "args"),
    )
    assert machine.run("stat", "-c", "%a %U", "/etc/credstore", CREDENTIAL) == "700 root\n600 root\n"
    as_nobody = machine.run("setpriv", "--reuid=65534", "cat", f"/run/credentials/{UNIT}/dsn", check=False)
    assert "Permission denied" in as_nobody


def test_the_journal_can_be_asked_by_field_and_by_priority(shop: Shop):
    (first, *_) = shop.grant(3)
    shop.start()
    shop.until_on_node(3)
    shop.node.kill()
    shop.said("node unreachable")
    shop.machine.inside(shop.node.start)
    shop.said("node is well again")

    added = shop.journal("NODE=fra1", "EVENT=key added", f"KEY={first}")
    assert added[0]["MESSAGE"] == f"key added: node=fra1, key={first}, cause=desired, inbound=vless-in"
    done = shop.journal("EVENT=cycle done", f"CYCLE={added[0]['CYCLE']}", "NODE=fra1")
    assert done[0]["ADD"] == "3"
    assert shop.journal("NODE=ams1") == []
    loud = shop.journal("-p", "err", "_COMM=reconciler")
    assert {entry["EVENT"] for entry in loud} == {"node unreachable"}
    assert {entry["PRIORITY"] for entry in loud} == {"3"}
    ours = shop.journal("_COMM=reconciler")
    assert {entry["PRIORITY"] for entry in ours} <= {"3", "4", "6"}
    assert all(entry["SYSLOG_IDENTIFIER"] == "reconciler" and entry["EVENT"] for entry in ours)
    assert shop.machine.journal("NODE=fra1", "_SYSTEMD_UNIT=init.scope") == []


def test_an_upgrade_is_noticed_by_no_customer(shop: Shop, tmp_path: Path):
    (key,) = shop.grant(1)
    shop.start()
    shop.until_on_node(1)
    before = shop.pid()
    ((secret,),) = shop.sql.execute("SELECT uuid_send(credential) FROM reconciler.keys WHERE id = %s", (key,))
    customer = VlessClient(tmp_path, shop.node.port(VLESS.tag), Credential(secret))
    enough = threading.Event()
    visiting = shop.machine.begin(lambda: visit(customer, enough))

    try:
        shop.machine.run("make", "-C", SOURCE, "install")
        shop.machine.run("systemctl", "restart", UNIT)
        waited(lambda: shop.show("StatusText") == "1/1 nodes converged", "the new one works")
    finally:
        enough.set()

    seen = visiting.result()
    assert (seen.refused, seen.broken) == (0, None)
    assert seen.opened > 20
    assert seen.downloaded_bytes > 1_000_000
    assert shop.pid() != before
    assert len(shop.journal("EVENT=cycle done")) == 1, "nothing was done twice"


def network_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


@pytest.fixture
def node_of_a_socket(host: Host, tmp_path: Path) -> Iterator[XrayProcess]:
    """A node whose API is a socket file of the group `xray`, as systemd would have made it."""
    host.machine.run("groupadd", "--force", "--system", "xray")
    group = int(host.machine.run("getent", "group", "xray").split(":")[2])
    socket = host.sockets / "api.sock"
    node = XrayProcess(
        tmp_path, [Listener(VLESS.tag, "vless", free_port())], name="ams1", api=f"unix:{socket}"
    )
    host.machine.inside(node.start)
    os.chown(socket, 0, group)
    socket.chmod(0o660)
    yield node
    node.kill()


def test_without_a_network_it_works_over_sockets_alone(shop: Shop, node_of_a_socket: XrayProcess):
    machine = shop.machine
    shop.sql.execute("UPDATE reconciler.nodes SET state = 'disabled'")
    shop.enrol(node_of_a_socket)
    shop.node = node_of_a_socket
    shop.grant(2)
    machine.write(CONFIG, OFTEN + "[http]\nlisten = 'unix:/run/reconciler/http.sock'\n")
    shipped = machine.path(f"{DOCUMENTS}/reconciler.service.d/sockets-only.conf").read_text()
    shop.drop_in(shipped, "[Service]\nSupplementaryGroups=xray\n")

    machine.run("systemctl", "start", UNIT, "reconciler-http.socket")

    shop.until_on_node(2)
    assert machine.inside(lambda: page("/readyz")) == "ok\n", "through the port that systemd holds"
    assert shop.show("RestrictAddressFamilies") == "AF_UNIX"
    assert network_of(shop.pid()) != network_of(machine.pid)
    assert exposure(machine, UNIT) <= 0.2


def test_the_migration_has_a_unit_and_a_credential_of_its_own(shop: Shop):
    shop.write_dsn(CREDENTIAL_OF_MIGRATION)

    shop.machine.run("systemctl", "start", "reconciler-migrate")

    said = [
        entry["MESSAGE"]
        for entry in shop.machine.journal(f"--since=@{shop.began:.6f}", "-u", "reconciler-migrate")
    ]
    assert any("nothing to do" in line for line in said), said


def exposure(machine: Machine, unit: str) -> float:
    """How much of the host a unit can reach, as systemd scores it, from 0 to 10."""
    said = machine.run("systemd-analyze", "security", "--offline=true", unit)
    return float(said.split("Overall exposure level for")[1].split(":")[1].split()[0])


def test_the_units_are_sound_and_reach_little(host: Host):
    machine = host.machine

    assert machine.run("systemd-analyze", "verify", *UNITS) == ""

    assert exposure(machine, UNIT) <= 1.1
    assert exposure(machine, "reconciler-migrate.service") <= 1.1
    assert exposure(machine, "reconciler-http.service") <= 0.4


def test_with_a_list_of_addresses_a_unit_reaches_less(shop: Shop):
    machine = shop.machine
    shipped = machine.path(f"{DOCUMENTS}/reconciler.service.d/addresses.conf").read_text()

    shop.drop_in(shipped.replace("# IPAddressAllow", "IPAddressAllow"))

    assert "10.8.0.0/24" in shop.show("IPAddressAllow")
    assert exposure(machine, UNIT) <= 1.0


def test_it_lies_where_an_admin_looks_and_goes_without_what_is_his(shop: Shop):
    machine = shop.machine
    shop.start()
    machine.run("systemctl", "enable", UNIT)
    assert machine.path("/etc/systemd/system/multi-user.target.wants/reconciler.service").is_symlink()
    assert machine.run("sh", "-c", "cd / && reconciler --version").startswith("reconciler, version")
    for name in ("README.md", "reconciler.toml", "node.example.json", "reconciler.service.d/addresses.conf"):
        assert machine.path(f"{DOCUMENTS}/{name}").is_file()

    try:
        machine.run("make", "-C", SOURCE, "uninstall")

        assert shop.show("LoadState") == "not-found"
        assert not machine.path("/etc/systemd/system/multi-user.target.wants/reconciler.service").is_symlink()
        left = machine.run("find", "/etc", "/usr/local", "/var", "-name", "*reconciler*").split()
        assert sorted(left) == [
            "/etc/credstore/reconciler.dsn",
            "/etc/reconciler",
            CONFIG,
            "/var/lib/private/reconciler",
            "/var/lib/reconciler",
        ]
        assert "full_interval_seconds" in machine.path(CONFIG).read_text()
    finally:
        machine.run("make", "-C", SOURCE, "install")


async def page(path: str) -> str:
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:9108{path}") as answer:
        return await answer.text()


def test_the_page_tells_of_the_process_though_it_cannot_see_others(shop: Shop):
    shop.start()

    async def asked() -> tuple[str, str]:
        return await page("/metrics"), await page("/readyz")

    metrics, ready = shop.machine.inside(asked)

    assert ready == "ok\n"
    figures = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("process_"))
    assert float(figures["process_resident_memory_bytes"]) > 10_000_000
    assert float(figures["process_start_time_seconds"]) > shop.began - 1
    assert Path(f"/proc/{shop.pid()}/root/proc/stat").exists() is False
