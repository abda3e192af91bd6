"""Traffic and quotas, by the daemon as a process: real bytes through a real client and a real node."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.demo.vless import VlessClient
from tests.daemons import DaemonProcess, running, until
from tests.parts_postgres import Database
from tests.parts_xray import OpenDoor, StartXray
from tests.sites import Site, enrol
from tests.world import VLESS

OFTEN = {"interval_seconds": 0.3}
SELDOM = {"interval_seconds": 3600.0}
RARELY = {"full_interval_seconds": 3600.0}
KILOBYTES = 1_000


@pytest.fixture
async def site(database: Database, start_xray: StartXray, tmp_path: Path) -> AsyncIterator[Site]:
    nodes = [await start_xray(), await start_xray()]
    async with await database.connect() as sql:
        await enrol(sql, nodes[:1])
        yield Site(sql, nodes, tmp_path, database.dsn_as("daemon"))


@pytest.fixture
async def customer(site: Site, door: OpenDoor) -> VlessClient:
    """One customer with one key, on the first node as soon as there is a daemon."""
    (key_id,) = await site.grant(1)
    return await door(site.nodes[0].port(VLESS.tag), await site.credential(key_id))


async def ready(site: Site, daemon: DaemonProcess) -> None:
    await daemon.logs("ready")
    await site.counts(1)


async def carries(customer: VlessClient, kilobytes: int) -> None:
    assert await customer.transfer(kilobytes * KILOBYTES, 60) == kilobytes * KILOBYTES


async def used(site: Site) -> tuple[int, int] | None:
    rows = await site.execute("SELECT up_bytes, down_bytes FROM reconciler.usage")
    return rows[0] if rows else None


async def counts(site: Site, kilobytes: int) -> None:
    """Wait until exactly so much is counted each way, and see that it does not become more."""
    expected = (kilobytes * KILOBYTES, kilobytes * KILOBYTES)

    async def reached() -> bool:
        found = await used(site)
        return found is not None and found >= expected

    await until(reached, f"{kilobytes} kB are counted")
    assert await used(site) == expected


async def readings(daemon: DaemonProcess, number: int) -> None:
    """Wait for so many more readings."""
    series = 'reconciler_traffic_reading_timestamp_seconds{node="xray-1"}'
    for _ in range(number):
        before = await daemon.metric(series)

        async def another(before: float | None = before) -> bool:
            return await daemon.metric(series) != before

        await until(another, "another reading")


async def test_what_a_client_has_carried_is_counted_exactly_across_two_restarts_of_its_node(
    site: Site, customer: VlessClient
):
    async with running(site.daemon(traffic=OFTEN)) as daemon:
        await ready(site, daemon)
        await carries(customer, 300)
        await counts(site, 300)
        await site.nodes[0].restart()
        await site.counts(1)
        await carries(customer, 700)
        await counts(site, 1_000)
        await site.nodes[0].restart()
        await site.counts(1)
        await carries(customer, 200)
        await carries(customer, 100)
        await counts(site, 1_300)

        await readings(daemon, 3)
        assert await used(site) == (1_300 * KILOBYTES, 1_300 * KILOBYTES)
        for way in ("up", "down"):
            series = f'reconciler_traffic_bytes_total{{node="xray-1",direction="{way}"}}'
            assert await daemon.metric(series) == 1_300 * KILOBYTES
        assert await site.execute("SELECT boot FROM reconciler.node_boots ORDER BY 1") == [(1,), (2,), (3,)]
        assert await site.execute("SELECT up_bytes FROM reconciler.node_usage") == [(1_300 * KILOBYTES,)]
        assert daemon.lines("traffic not counted") == []


async def test_a_daemon_that_comes_later_counts_what_was_carried_without_it(
    site: Site, customer: VlessClient
):
    async with running(site.daemon("first", traffic=OFTEN)) as daemon:
        await ready(site, daemon)
        await carries(customer, 50)
        await counts(site, 50)
        daemon.kill()
    await carries(customer, 70)

    async with running(site.daemon("second", traffic=OFTEN)):
        await counts(site, 120)


async def test_a_node_that_hangs_keeps_no_other_from_being_counted(site: Site, customer: VlessClient):
    await enrol(site.sql, site.nodes[1:])
    await site.execute("UPDATE reconciler.nodes SET pool = 'elsewhere' WHERE name = %s", site.nodes[1].name)
    async with running(site.daemon(traffic=OFTEN, node={"listing_timeout_seconds": 60.0})) as daemon:
        await ready(site, daemon)
        site.nodes[1].freeze()

        await carries(customer, 50)
        await counts(site, 50)


async def test_a_reload_changes_how_often_is_read(site: Site, customer: VlessClient):
    daemon = site.daemon(traffic=SELDOM)
    async with running(daemon):
        await ready(site, daemon)
        await carries(customer, 10)
        daemon.write_config(traffic=OFTEN)
        daemon.send(signal.SIGHUP)

        await counts(site, 10)


@pytest.mark.parametrize("notify", [True, False], ids=["bells", "polling"])
async def test_who_has_used_up_his_traffic_is_out_within_a_reading_and_in_again_for_more(
    site: Site, customer: VlessClient, *, notify: bool
):
    site.database["notify"] = notify
    await site.execute("UPDATE reconciler.subscriptions SET traffic_limit_bytes = 300000")
    cycle = RARELY if notify else {}
    async with running(site.daemon(cycle=cycle, traffic=OFTEN)) as daemon:
        await ready(site, daemon)
        await carries(customer, 100)
        await counts(site, 100)
        assert await customer.opens()

        await carries(customer, 100)
        await site.counts(0)
        assert not await customer.opens()
        told = await daemon.logs("traffic used up")
        assert told["number"] == 1
        reasons = await site.execute("SELECT early, ended_reason FROM reconciler.promises")
        assert reasons == [("over_quota", "over_quota")]

        await site.execute(
            "UPDATE reconciler.subscriptions SET traffic_limit_bytes = traffic_limit_bytes * 2"
        )
        await site.counts(1)
        assert await customer.opens()


async def test_a_mass_of_keys_over_their_quota_is_held_and_everything_else_goes_on(
    site: Site, customer: VlessClient
):
    assert customer
    keys = await site.grant(39)
    async with running(site.daemon(traffic=OFTEN)) as daemon:
        await site.counts(40)

        await site.execute("UPDATE reconciler.subscriptions SET traffic_limit_bytes = 0 WHERE id > 10")

        await daemon.logs("steps held: they would break more promises than an hour may")
        assert len(await site.on_nodes()) == 40
        await site.execute("UPDATE reconciler.keys SET revoked_at = now() WHERE id = %s", keys[0])
        await site.counts(39)


async def test_bytes_on_a_connection_that_outlives_its_key_still_count(site: Site, customer: VlessClient):
    async with running(site.daemon(traffic=OFTEN)) as daemon:
        await ready(site, daemon)
        carrying = asyncio.create_task(customer.transfer(20_000 * KILOBYTES, 60))

        async def begun() -> bool:
            return await used(site) is not None

        await until(begun, "the transfer is being counted")
        await site.execute("UPDATE reconciler.keys SET revoked_at = now()")
        await site.counts(0)

        assert await carrying == 20_000 * KILOBYTES
        await counts(site, 20_000)
