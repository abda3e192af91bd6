"""The table of the fleet, which never shows an old status as if it were fresh."""

from typing import Any

import pytest

from tests.parts_cli import Cli


async def status(cli: Cli) -> dict[str, Any]:
    (row,) = (await cli("status", "--json")).document["nodes"]
    return dict(row)


@pytest.mark.usefixtures("world")
async def test_a_node_that_nobody_has_tried_says_so(cli):
    said = await cli("status")

    assert said.code == 0
    assert "never tried" in said.out
    assert (await status(cli))["stale"] is True


async def test_a_fresh_status_has_its_numbers_and_its_holder(cli, world):
    await world.keys(3)
    await world.cycle()

    said = await cli("status")
    row = await status(cli)

    assert "changed" in said.out
    assert "3/3/-" in said.out
    assert "stale" not in said.out
    assert (row["stale"], row["holder"], row["active_users"], row["placed"]) == (False, "test-n1", 3, 3)


async def test_an_old_status_is_marked_stale_and_a_disabled_node_is_not(cli, world):
    await world.cycle()
    await world.execute("UPDATE reconciler.node_status SET last_attempt_at = now() - interval '10 minutes'")

    assert "stale (converged)" in (await cli("status")).out
    await cli("node", "disable", "n1")
    assert "stale" not in (await cli("status")).out


async def test_a_holder_whose_lease_ended_holds_nothing(cli, world):
    await world.cycle()
    await world.leases.release([world.node_id])

    said = await cli("status", "--json")

    assert said.code == 0
    assert said.document["nodes"][0]["holder"] is None


async def test_an_error_stands_below_the_table(cli, world, node):
    node.kill()
    await world.cycle()

    said = await cli("status")

    assert "unreachable" in said.out
    assert said.out.splitlines()[-1].startswith("n1: ")


async def test_without_nodes_it_says_how_to_begin(cli):
    said = await cli("status")

    assert (said.code, said.err) == (0, "")
    assert "node add" in said.out
