"""The fleet page and health of the daemon as a process, with real nodes that come and go."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.daemons import DaemonProcess, running, until
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.sites import Site, enrol


@pytest.fixture
async def site(database: Database, start_xray: StartXray, tmp_path: Path) -> AsyncIterator[Site]:
    nodes = [await start_xray(), await start_xray()]
    async with await database.connect() as sql:
        await enrol(sql, nodes)
        yield Site(sql, nodes, tmp_path, database.dsn_as("daemon"))


async def says(daemon: DaemonProcess, *patterns: str) -> str:
    """Wait until the page says all of this; return its text."""
    seen = ""

    async def found() -> bool:
        nonlocal seen
        _, html = await daemon.get("/")
        seen = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())
        return all(re.search(pattern, seen) for pattern in patterns)

    try:
        await until(found, f"the page says {patterns}")
    except AssertionError as error:
        raise AssertionError(seen) from error
    return seen


async def test_a_person_sees_how_the_fleet_is_and_what_is_wrong(site: Site):
    await site.execute("UPDATE reconciler.nodes SET capacity = 500, pool = 'default'")
    async with running(site.daemon()) as daemon:
        await site.grant(40)
        await site.counts(40)
        ours = r"active 20 / 20 500 0 0 0 \d+ s ago \d+ s ago [\d.]+ m?s [\d.]+ m?s"
        await says(
            daemon,
            "All 2 nodes are as desired",
            "Keys on nodes 40 Keys desired 40 Removals held 0 Orphans 0",
            "changes listened for",
            f"xray-1 (converged|changed) {ours}",
            f"xray-2 (converged|changed) {ours}",
        )
        site.nodes[0].kill()
        wrong = await says(
            daemon, "1 of 2 nodes is as desired", "1 unreachable", "node unreachable on xray-1"
        )
        assert re.search(r"xray-1 unreachable active 20 / 20 500 .*efused.* xray-2 ", wrong), (
            "the gravest first"
        )

        await site.execute("UPDATE reconciler.nodes SET state = 'disabled' WHERE name = 'xray-1'")
        await says(daemon, "The node is as desired", "1 disabled", "xray-1 disabled disabled")


async def test_nodes_that_another_daemon_holds_are_known_from_their_rows(site: Site):
    first, second = site.daemon("first", lease={"holder": "vm-1"}), site.daemon("second")
    async with running(first):
        await first.logs("ready")
        async with running(second):
            await second.logs("ready")
            await site.grant(10)

            await says(first, "All 2 nodes are as desired")
            await says(
                second, "All 2 nodes are as desired", r"xray-1 (converged|changed) active \d+ / \d+ .* vm-1"
            )
            site.nodes[1].kill()
            await says(second, r"xray-2 unreachable active .* vm-1 .*efused")


async def test_while_it_stops_it_is_alive_and_not_ready_and_says_so(site: Site):
    slow = {"call_timeout_seconds": 30.0}
    async with running(site.daemon(node=slow)) as daemon:
        await daemon.logs("ready")
        assert (await daemon.get("/readyz"))[0] == 200
        site.nodes[0].freeze()
        await asyncio.sleep(1.5)  # a probe is under way, and what it waits for does not come
        daemon.send(signal.SIGTERM)
        await daemon.logs("stopping")

        status, said = await daemon.get("/readyz")
        assert (status, "[-] running: stopping" in said) == (503, True)
        assert (await daemon.get("/livez"))[0] == 200
        await says(daemon, "running stopping")
        site.nodes[0].thaw()
        assert await daemon.ended() == 0
