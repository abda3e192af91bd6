"""The daemon as a process, against real nodes and a real database that come and go."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reconciler.db.migrate import migrate
from reconciler.demo.postgres import EmbeddedPostgres
from reconciler.model import Protocol
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from tests.daemons import INTERVAL_SECONDS, DaemonProcess, running, until
from tests.parts_postgres import Database
from tests.parts_xray import OpenDoor, StartXray
from tests.sites import Site, enrol
from tests.world import CALL_SECONDS, VLESS


@pytest.fixture
async def site(database: Database, start_xray: StartXray, tmp_path: Path) -> AsyncIterator[Site]:
    nodes = [await start_xray(), await start_xray()]
    async with await database.connect() as sql:
        await enrol(sql, nodes)
        yield Site(sql, nodes, tmp_path, database.dsn_as("daemon"))


@pytest.fixture(params=["bells", "polling"])
def either_way(request: pytest.FixtureRequest, site: Site) -> Site:
    """With NOTIFY, and as behind a transaction pooler, where nothing of it arrives."""
    site.database["notify"] = request.param == "bells"
    return site


async def test_a_grant_reaches_a_node_and_opens_the_door_there(either_way: Site, door: OpenDoor):
    site = either_way
    async with running(site.daemon()) as daemon:
        await daemon.logs("ready")
        (key,) = await site.grant(1)
        await site.counts(1)

        ((node, name),) = await site.on_nodes()
        port = next(each.port(VLESS.tag) for each in site.nodes if each.name == node)
        customer = await door(port, await site.credential(key))
        assert name == f"k{key}@test"
        assert await customer.opens()
        assert await daemon.stop() == 0


async def test_an_ended_key_is_gone_within_an_interval(either_way: Site):
    site = either_way
    async with running(site.daemon()) as daemon:
        await site.grant(10, "1 hour")
        await site.grant(5, "6 seconds")
        await site.counts(15)

        await site.counts(10)

        async def overstays() -> list[float]:
            ended = await site.execute(
                """SELECT extract(epoch FROM p.ended_at - s.expires_at)::float8 FROM reconciler.promises p
                     JOIN reconciler.keys k ON k.id = p.key_id
                     JOIN reconciler.subscriptions s ON s.id = k.subscription_id
                    WHERE p.ended_at IS NOT NULL"""
            )
            return [seconds for (seconds,) in ended] if len(ended) == 5 else []

        overstayed = await until(overstays, "the promises are ended")
        assert min(overstayed) > 0
        assert max(overstayed) < 10 * INTERVAL_SECONDS, "an interval, and a busy machine's delay"
        assert await daemon.metric('reconciler_overstay_seconds{node="xray-1"}') == 0


async def test_a_bell_does_not_wait_for_the_next_full_cycle(site: Site):
    rarely = {"full_interval_seconds": 3600.0, "probe_interval_seconds": 60.0}
    async with running(site.daemon(cycle=rarely)) as daemon:
        await daemon.logs("ready")
        keys = await site.grant(30, "1 hour")
        await site.counts(30)
        (late,) = await site.grant(1, "8 seconds")
        await site.counts(31)

        await site.execute("UPDATE reconciler.keys SET revoked_at = now() WHERE id = ANY(%s)", keys[:2])
        await site.counts(29)
        await site.counts(28)
        names = {name for _, name in await site.on_nodes()}
        assert f"k{late}@test" not in names, "the clock has rung for it"
        assert len(daemon.lines("ready")) == 1


async def test_a_key_that_starts_later_comes_when_it_starts(site: Site):
    rarely = {"full_interval_seconds": 3600.0, "probe_interval_seconds": 60.0}
    async with running(site.daemon(cycle=rarely)) as daemon:
        await daemon.logs("ready")
        (key,) = await site.grant(1)
        await site.counts(1)
        await site.execute("UPDATE reconciler.subscriptions SET starts_at = now() + interval '4 seconds'")
        await site.counts(0)

        await site.counts(1)

        async def promised_since_the_start() -> bool:
            ((since,),) = await site.execute(
                "SELECT max(made_at) >= max(starts_at) FROM reconciler.promises, reconciler.subscriptions"
            )
            return bool(since)

        await until(promised_since_the_start, "it is promised, and not before its start")
        assert {name for _, name in await site.on_nodes()} == {f"k{key}@test"}


async def test_a_restarted_node_is_filled_again_and_told_of(either_way: Site):
    site = either_way
    async with running(site.daemon()) as daemon:
        await site.grant(40)
        await site.counts(40)
        port = XrayNode("n", site.nodes[0].api)

        async def grown_up() -> bool:
            return (await port.probe([], CALL_SECONDS)).uptime_seconds >= 4

        await until(grown_up, "the node is old enough for its next start to be told from this one")
        await port.close()

        site.nodes[0].kill()
        await daemon.logs("node unreachable")
        await site.nodes[0].start()

        await site.counts(40)
        await daemon.logs("node restarted; its users are put back")
        assert await daemon.metric('reconciler_node_boots_total{node="xray-1"}') == 1


async def test_a_restart_too_quick_to_miss_a_call_is_noticed_by_a_probe(site: Site):
    slow = {"full_interval_seconds": 3600.0, "probe_interval_seconds": 0.2}
    async with running(site.daemon(cycle=slow)) as daemon:
        await site.grant(10)
        await site.counts(10)

        await site.nodes[0].restart()

        await site.counts(10)
        assert daemon.lines("cycle overran its interval") == []


async def test_it_starts_without_a_database_and_goes_on_when_there_is_one(
    start_xray: StartXray, tmp_path: Path
):
    with EmbeddedPostgres({"fsync": "off"}) as server:
        await migrate(server.dsn, "test", lambda _: None)
        node = await start_xray()
        async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as sql:
            await enrol(sql, [node])
            await Site(sql, [node], tmp_path, server.dsn).grant(5)
        server.kill()
        lease = {"ttl_seconds": 3.0, "renew_seconds": 1.0, "margin_seconds": 0.5}
        async with running(DaemonProcess(tmp_path, server.dsn, lease=lease)) as daemon:
            await daemon.logs("database out of reach; nodes stay as they are")
            assert (await daemon.get("/livez"))[0] == 200
            assert (await daemon.get("/readyz"))[0] == 503
            await asyncio.to_thread(server.start)
            async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as sql:
                site = Site(sql, [node], tmp_path, server.dsn)
                await site.counts(5)
                assert await daemon.metric("reconciler_database_up") == 1
                assert (await daemon.get("/readyz"))[0] == 200

                server.kill()
                await daemon.logs("lease ran out; the node is left alone until we hold it again")
                assert len(await site.on_nodes()) == 5, "nodes stay as they are"
                alive, checks = await daemon.get("/livez?verbose")
                assert alive == 200
                assert node.name not in checks, "nobody waits for a loop that has ended"
                assert await daemon.metric(f'reconciler_lease_epoch{{node="{node.name}"}}') == 0
                await asyncio.to_thread(server.start)
            async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as sql:
                site = Site(sql, [node], tmp_path, server.dsn)
                await site.grant(2)
                await site.counts(7)
            assert await daemon.stop() == 0


async def test_one_node_that_hangs_or_refuses_hurts_no_other(site: Site):
    site.nodes[0].freeze()
    await site.execute("UPDATE reconciler.nodes SET state = 'draining' WHERE name = %s", site.nodes[0].name)
    await site.execute(
        """INSERT INTO reconciler.inbounds (node_id, tag, protocol)
           SELECT id, 'nowhere', 'vless' FROM reconciler.nodes WHERE name = %s""",
        site.nodes[1].name,
    )
    async with running(site.daemon()) as daemon:
        await site.grant(7)

        rejected = await daemon.logs("node rejected")
        unreachable = await daemon.logs("node unreachable")
        assert "nowhere" in rejected["reason"]
        assert (rejected["node"], unreachable["node"]) == (site.nodes[1].name, site.nodes[0].name)
        site.nodes[0].thaw()
        await site.counts(7)


async def test_two_daemons_share_the_fleet_and_one_takes_over_from_the_other(site: Site):
    first, second = site.daemon("first"), site.daemon("second")
    async with running(first), running(second):
        await first.logs("ready")
        await second.logs("ready")
        await site.grant(20)
        await site.counts(20)
        holders = await site.execute("SELECT node_id, holder, epoch FROM reconciler.leases ORDER BY node_id")

        assert len(holders) == 2
        assert {epoch for _, _, epoch in holders} == {1}, "nobody took a lease that was held"
        assert await first.stop() == 0

        async def handed_over() -> bool:
            return (await second.metric('reconciler_lease_epoch{node="xray-2"}') or 0) >= 1

        await until(handed_over, "the other daemon has the nodes")
        await site.grant(5)
        await site.counts(25)
        for daemon in (first, second):
            assert daemon.lines("cycle failed by a bug of ours") == []


async def test_nodes_states_and_keys_without_a_node_are_in_the_metrics(site: Site):
    await site.execute("UPDATE reconciler.nodes SET capacity = 3")
    await site.execute("UPDATE reconciler.nodes SET state = 'draining' WHERE name = 'xray-2'")
    async with running(site.daemon()) as daemon:
        await site.grant(10)

        async def told(state: str) -> bool:
            series = f'reconciler_node_state{{node="xray-2",state="{state}"}}'
            without = await daemon.metric("reconciler_unplaced_keys")
            return (await daemon.metric(series), without) == (1, 7 if state == "draining" else 4)

        await until(lambda: told("draining"), "one node drains, and the other has no room for 7 keys")
        await site.execute("UPDATE reconciler.nodes SET state = 'active' WHERE name = 'xray-2'")
        await until(lambda: told("active"), "both are active, and 4 keys are without a node")
        await daemon.logs("keys without a node: their pool has no room")


async def test_told_to_stop_in_the_middle_of_much_work_it_ends_its_calls_and_leaves_nothing_wrong(site: Site):
    async with running(site.daemon(cycle={"in_flight": 1})) as daemon:
        await daemon.logs("ready")
        await site.grant(6000)

        async def begun() -> bool:
            return len(await site.on_nodes()) > 100

        await until(begun, "the work has begun")
        assert await daemon.stop() == 0

        assert (stopped := await site.on_nodes())
        assert len(stopped) < 6000
        expiries = await site.execute("SELECT expires_at = '-infinity' FROM reconciler.leases")
        assert expiries == [(True,), (True,)], "the leases are free for others at once"
        promised = await site.execute("SELECT count(*) FROM reconciler.promises WHERE ended_at IS NULL")
        assert promised == [(len(stopped),)]


async def test_a_reload_takes_a_good_configuration_and_refuses_a_bad_one(site: Site):
    daemon = site.daemon()
    async with running(daemon):
        await daemon.logs("ready")
        daemon.config.write_text("[cycle]\nfull_interval_seconds = 'often'\n")
        daemon.send(signal.SIGHUP)
        refused = await daemon.logs("configuration refused; the old one stays")
        assert refused["key"] == "cycle.full_interval_seconds"

        daemon.write_config(guard={"floor": 100})
        daemon.send(signal.SIGHUP)
        await daemon.logs("configuration read again")
        keys = await site.grant(60)
        await site.counts(60)
        await site.execute("UPDATE reconciler.keys SET revoked_at = now() WHERE id = ANY(%s)", keys)
        await site.counts(0)


async def test_a_schema_of_another_version_is_refused_with_both_numbers(site: Site):
    await site.execute("INSERT INTO reconciler.migrations (number, name) SELECT 900, 'from the future'")
    async with running(site.daemon()) as daemon:
        assert await daemon.ended() == 78
        assert "900" in daemon.log_file.read_text()


async def test_a_role_without_rights_and_an_empty_database_are_told_and_end_it(
    database: Database, empty_database: Database, tmp_path: Path
):
    async with running(DaemonProcess(tmp_path, empty_database.dsn, "empty")) as daemon:
        assert await daemon.ended() == 78
        assert "reconciler migrate" in daemon.log_file.read_text()
    for role in ("writer", "reader", "operator"):
        async with running(DaemonProcess(tmp_path, database.dsn_as(role), role)) as daemon:
            assert await daemon.ended() == 78
            assert "permission denied" in daemon.log_file.read_text()


async def test_a_wrong_password_is_told_and_waited_for(database: Database, tmp_path: Path):
    dsn = make_conninfo(database.dsn_as("daemon"), password="wr0ng-canary")
    async with running(DaemonProcess(tmp_path, dsn)) as daemon:
        told = await daemon.logs("database out of reach; nodes stay as they are")
        assert "password authentication failed" in told["reason"]
        assert "wr0ng-canary" not in daemon.log_file.read_text()
        assert (await daemon.get("/livez"))[0] == 200


async def test_two_rows_for_one_xray_hurt_nobody_and_are_told_of(site: Site):
    alias = site.nodes[0].api.replace("127.0.0.1", "localhost")
    await site.execute("UPDATE reconciler.nodes SET api = %s WHERE name = %s", alias, site.nodes[1].name)
    async with running(site.daemon()) as daemon:
        await site.grant(20)
        told = await daemon.logs(
            "keys kept that were never placed here: is this the Xray of another row, too?"
        )
        assert told["keys"] == 10
        port = XrayNode("n", site.nodes[0].api)
        assert len(await list_users(port, VLESS, CALL_SECONDS)) == 20
        await port.close()


def test_the_inbound_of_these_tests_is_the_one_that_nodes_start_with():
    assert (VLESS.tag, VLESS.protocol) == ("vless-in", Protocol.VLESS)
