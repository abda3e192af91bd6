"""
How soon things happen, beside how soon they could on this machine at this moment.

The bounds are those of a healthy machine. Where this one is slower, they are
stretched by what a minimal program takes for the same in the same minute, so
that what is judged is ours and not the neighbours' load.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import psycopg
import pytest

from reconciler.model import Account, Credential
from reconciler.node.xray import XrayNode
from tests.daemons import running, until
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.sites import Site, enrol
from tests.world import CALL_SECONDS, VLESS

GRANT_SECONDS = 0.025
END_SECONDS = 1.0
REFILL_SECONDS = 3.0
KEYS_TO_REFILL = 10_000
ROUNDS = 40
STRETCH = 60
"""How much longer than the minimal program's, on a machine so busy that ten processes wait for two cores."""
RARELY = {"full_interval_seconds": 3600.0}


@pytest.fixture
async def site(database: Database, start_xray: StartXray, tmp_path) -> AsyncIterator[Site]:
    node = await start_xray()
    async with await database.connect() as sql:
        await enrol(sql, [node])
        yield Site(sql, [node], tmp_path, database.dsn_as("daemon"))


async def counted(port: XrayNode, number: int) -> float:
    """Wait until the node has so many users; return when it had."""
    async with asyncio.timeout(60):
        while (await port.probe([VLESS], CALL_SECONDS)).users[VLESS.tag] != number:
            await asyncio.sleep(0.001)  # leave the processor to those who work
    return time.monotonic()


async def minimal_seconds(site: Site, port: XrayNode, dsn: str) -> list[float]:
    """What the least program takes from a commit to a user on the node: LISTEN, SELECT, one AlterInbound."""
    took = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listening:
        await listening.execute("LISTEN minimal")
        for number in range(ROUNDS):
            async with site.sql.transaction():
                await site.execute("SELECT pg_notify('minimal', %s)", str(number))
            committed = time.monotonic()
            async for _ in listening.notifies(stop_after=1):
                pass
            await listening.execute("SELECT expires_at FROM reconciler.subscriptions LIMIT 1")
            account = Account(Credential(number.to_bytes(16, "little")))
            await port.add(VLESS, f"minimal-{number}", account, CALL_SECONDS)
            took.append(time.monotonic() - committed)
    return took


async def test_a_grant_is_usable_within_milliseconds_of_its_commit(site: Site, database: Database):
    port = XrayNode("n", site.nodes[0].api)
    async with running(site.daemon(cycle=RARELY)) as daemon:
        await daemon.logs("ready")
        await site.grant(1)
        await counted(port, 1)
        least = statistics.median(await minimal_seconds(site, port, database.dsn))
        took = []
        for number in range(ROUNDS):
            await site.grant(1)
            committed = time.monotonic()
            took.append(await counted(port, 1 + ROUNDS + number + 1) - committed)
    await port.close()

    assert statistics.median(took) < max(GRANT_SECONDS, STRETCH * least)


async def test_a_new_key_waits_for_one_bell_only(site: Site):
    await site.execute("ALTER TABLE reconciler.placements DISABLE TRIGGER ring_new")
    port = XrayNode("n", site.nodes[0].api)
    async with running(site.daemon(cycle=RARELY)) as daemon:
        await daemon.logs("ready")
        await site.grant(1)
        await counted(port, 1)
    await port.close()


async def test_a_thousand_ends_at_one_instant_are_over_within_a_second(site: Site):
    port = XrayNode("n", site.nodes[0].api)
    async with running(site.daemon(cycle=RARELY)) as daemon:
        await daemon.logs("ready")
        await site.grant(1000, "1 hour")
        began = time.monotonic()
        await counted(port, 1000)
        filling = time.monotonic() - began

        async def promised() -> bool:
            ((promises,),) = await site.execute("SELECT count(*) FROM reconciler.promises")
            return bool(promises == 1000)

        await until(promised, "the keys are promised")
        await site.execute(
            """UPDATE reconciler.subscriptions
                  SET starts_at = now() - interval '1 day', expires_at = now() + interval '4 seconds'"""
        )
        await site.execute("UPDATE reconciler.promises SET promised_until = now() + interval '1 second'")
        await counted(port, 0)
        ((late,),) = await site.execute(
            """SELECT extract(epoch FROM clock_timestamp() - min(expires_at))::float8
                 FROM reconciler.subscriptions"""
        )
    await port.close()

    assert 0 < late < max(END_SECONDS, 3 * filling)


async def test_a_restarted_node_is_full_again_in_about_the_time_that_its_keys_take(site: Site):
    port = XrayNode("n", site.nodes[0].api)
    async with running(site.daemon(cycle=RARELY | {"probe_interval_seconds": 1.0})) as daemon:
        await daemon.logs("ready")
        began = time.monotonic()
        await site.grant(KEYS_TO_REFILL)
        filling = await counted(port, KEYS_TO_REFILL) - began

        await site.nodes[0].restart()
        answered = time.monotonic()
        refilled = await counted(port, KEYS_TO_REFILL) - answered
        await daemon.logs("node restarted; its users are put back")
    await port.close()

    assert refilled < max(REFILL_SECONDS, 2.5 * filling)
