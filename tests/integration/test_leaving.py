"""Placements that were told to leave: who gets another node, and when the old one lets go; with real rows."""

import pytest

from reconciler.db.pool import Connection
from reconciler.desired.leaving import Progress, let_go, progress
from reconciler.errors import Invalid, NoRoom, Unknown
from reconciler.model import NodeState
from tests.placing import ENDS, grant, live, node, place_rows
from tests.rows import one, promise


@pytest.fixture
async def connection(database):
    async with await database.connect("daemon") as connection:
        await connection.set_autocommit(True)
        yield connection


async def converge(root: Connection, node_id: int) -> None:
    """Say that a node is as desired."""
    await root.execute(
        "INSERT INTO reconciler.node_status (node_id, holder, outcome, last_attempt_at, last_converged_at)"
        " VALUES (%s, 'test', 'converged', now(), clock_timestamp())"
        " ON CONFLICT (node_id) DO UPDATE SET last_converged_at = excluded.last_converged_at",
        (node_id,),
    )


async def ended(connection: Connection) -> dict[str, int]:
    found = await let_go(connection)
    assert found is not None
    return dict(found.ended)


@pytest.fixture
async def two(operator, root, connection):
    """Two keys on fra-1, and fra-2 beside it; return the nodes' ids and the keys."""
    old = await node(operator, "fra-1")
    keys = await grant(root, 2)
    await place_rows(connection)
    return old, await node(operator, "fra-2"), keys


async def test_the_old_node_lets_go_when_the_new_one_has_promised_and_converged(
    operator, root, connection, two
):
    _, new, keys = two
    assert (await operator.drain("fra-1", 0)).leaving == 2
    assert await place_rows(connection) == (2, {})
    assert await live(root) == {key: ["fra-1", "fra-2"] for key in keys}
    assert await ended(connection) == {}

    await converge(root, new)
    assert await ended(connection) == {}, "converged, but promised nothing"
    await promise(root, keys[0], new)
    assert await ended(connection) == {}, "promised, but not converged since"
    await converge(root, new)

    assert await ended(connection) == {"fra-1": 1}
    assert await live(root) == {keys[0]: ["fra-2"], keys[1]: ["fra-1", "fra-2"]}
    assert await ended(connection) == {}


async def test_the_grace_is_waited_for_and_can_be_changed(operator, root, connection, two):
    old, new, keys = two
    await operator.drain("fra-1", 600)
    assert await progress(root, old) == Progress(unplaced=2)
    await place_rows(connection)
    assert await progress(root, old) == Progress(unconfirmed=2)
    for key in keys:
        await promise(root, key, new)
    await converge(root, new)

    found = await let_go(connection)
    assert found is not None
    assert (found.ended, found.left, found.unconfirmed) == ({}, 2, False)
    assert 590 < (found.look_in_seconds or 0) <= 600
    assert await progress(root, old) == Progress(in_grace=2)
    drained = await operator.drain("fra-1", 0)
    assert (drained.changed, drained.leaving) == (False, 2)

    assert await ended(connection) == {"fra-1": 2}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE reconciler.keys SET credential = gen_random_uuid()",
        "INSERT INTO reconciler.inbounds (node_id, tag, protocol) VALUES (2, 'other', 'vmess')",
        "UPDATE reconciler.promises SET ended_at = now(), ended_reason = 'gone'",
        "UPDATE reconciler.nodes SET state = 'disabled' WHERE name = 'fra-2'",
        "UPDATE reconciler.nodes SET state = 'observed' WHERE name = 'fra-2'",
        "UPDATE reconciler.placements SET ended_at = now() WHERE node_id = 2",
        "UPDATE reconciler.placements SET leaving_at = now(), grace_seconds = 0 WHERE node_id = 2",
    ],
    ids=["credential", "inbound", "promise", "disabled", "observed", "placement", "leaving too"],
)
async def test_what_takes_the_new_node_away_keeps_the_old_one(operator, root, connection, two, change):
    _, new, keys = two
    await operator.drain("fra-1", 0)
    await place_rows(connection)
    for key in keys:
        await promise(root, key, new)
    await root.execute(change)
    await converge(root, new)

    assert await ended(connection) == {}


@pytest.mark.parametrize("outcome", ["unreachable", "rejected", "failed"])
async def test_while_the_new_node_is_not_well_the_old_one_waits_though_it_had_the_key(
    operator, root, connection, two, outcome
):
    _, new, keys = two
    await operator.drain("fra-1", 600)
    await place_rows(connection)
    for key in keys:
        await promise(root, key, new)
    await converge(root, new)
    await operator.drain("fra-1", 0)
    await root.execute("UPDATE reconciler.node_status SET outcome = %s", (outcome,))

    found = await let_go(connection)

    assert found is not None
    assert (found.ended, found.left, found.unconfirmed) == ({}, 2, True)
    await root.execute("UPDATE reconciler.node_status SET outcome = 'held'")
    assert await ended(connection) == {"fra-1": 2}


@pytest.mark.parametrize(
    "end",
    [*ENDS.values(), "UPDATE reconciler.subscriptions SET traffic_limit_bytes = 0"],
    ids=[*ENDS, "quota"],
)
@pytest.mark.usefixtures("two")
async def test_a_key_that_opens_no_door_is_let_go_at_once(operator, root, connection, end):
    await operator.drain("fra-1", 600)
    await root.execute(end)

    assert await ended(connection) == {"fra-1": 2}


@pytest.mark.usefixtures("two")
async def test_a_pool_without_room_drains_nothing_unless_told_and_nobody_is_let_go_then(
    operator, root, connection
):
    await operator.set_capacity("fra-2", 1)
    words = "2 keys of the pool default, whose 1 other active node has room for 1: 1 key"
    with pytest.raises(NoRoom, match=words):
        await operator.drain("fra-1", 0)
    await operator.set_state("fra-2", NodeState.OBSERVED)
    with pytest.raises(NoRoom, match="which has no other active node: 2 keys"):
        await operator.drain("fra-1", 0)
    with pytest.raises(NoRoom, match="the last active node of the pool default, and has 2 of its keys"):
        await operator.drain("fra-1", None)
    assert await one(root, "SELECT state FROM reconciler.nodes WHERE name = 'fra-1'") == "active"

    await operator.set_state("fra-2", NodeState.ACTIVE)
    await operator.drain("fra-1", 0, without_room=True)
    assert await place_rows(connection) == (1, {"default": 1})
    assert await ended(connection) == {}
    await operator.set_capacity("fra-2", 2)
    assert await place_rows(connection) == (1, {})


async def test_a_node_that_takes_keys_again_keeps_those_without_another(operator, root, connection, two):
    _, _, keys = two
    await operator.set_capacity("fra-2", 1)
    await operator.drain("fra-1", 0, without_room=True)
    await place_rows(connection)
    await operator.set_state("fra-1", NodeState.ACTIVE)

    assert await operator.stay("fra-1") == 1
    assert await place_rows(connection) == (0, {})
    assert await live(root) == {keys[0]: ["fra-1", "fra-2"], keys[1]: ["fra-1"]}


async def test_a_key_is_placed_again_on_the_node_that_it_leaves_when_that_takes_keys(
    operator, root, connection, two
):
    _, _, (key, _) = two
    await operator.move(key, "fra-2", 600, "test")
    await operator.end_placement(key, "fra-2")
    await operator.set_capacity("fra-2", 0)

    assert await place_rows(connection) == (1, {})

    assert await live(root) == {key: ["fra-1"], key + 1: ["fra-1"]}
    assert await one(root, "SELECT count(*) FROM reconciler.placements WHERE leaving_at IS NOT NULL") == 0


async def test_a_key_moves_there_and_back(operator, root, two):
    _, _, (key, _) = two
    assert await operator.move(key, "fra-2", 600, "test")
    assert not await operator.move(key, "fra-2", 600, "test")
    assert (await live(root))[key] == ["fra-1", "fra-2"]
    assert await operator.move(key, "fra-1", 600, "test")

    leaving = await root.execute(
        "SELECT n.name FROM reconciler.placements p JOIN reconciler.nodes n ON n.id = p.node_id"
        " WHERE p.leaving_at IS NOT NULL AND p.ended_at IS NULL"
    )
    assert await leaving.fetchall() == [("fra-2",)]


async def test_a_move_that_makes_no_sense_is_refused_with_the_numbers(operator, root, two):
    _, _, (key, _) = two
    (everywhere,) = await grant(root, 1, spread="all")
    await node(operator, "full", 0)
    await node(operator, "ams-1", pool="europe")
    await node(operator, "gone", state=NodeState.DISABLED)
    for number, target, words in (
        (key, "full", "has 0 keys where 0 may be"),
        (key, "ams-1", "of the key's pool default, and this one is of europe"),
        (key, "gone", "active, and this one is disabled"),
        (everywhere, "fra-2", "for all nodes of its pool default"),
    ):
        with pytest.raises(Invalid, match=words):
            await operator.move(number, target, 0, "test")
    for grace in (-1, 30 * 86_400 + 1, True):
        with pytest.raises(Invalid, match="grace_seconds"):
            await operator.move(key, "fra-2", grace, "test")
    for number, target in ((999, "fra-2"), (key, "nowhere")):
        with pytest.raises(Unknown):
            await operator.move(number, target, 0, "test")

    assert (await live(root))[key] == ["fra-1"]


async def test_a_key_for_all_nodes_leaves_one_of_them_when_another_has_it(operator, root, connection):
    ids = {name: await node(operator, name) for name in ("fra-1", "fra-2", "fra-3")}
    (key,) = await grant(root, 1, spread="all")
    await place_rows(connection)
    await operator.drain("fra-1", 0)
    assert await place_rows(connection) == (0, {}), "it has the others already"
    assert await ended(connection) == {}
    await promise(root, key, ids["fra-3"])
    await converge(root, ids["fra-3"])

    assert await ended(connection) == {"fra-1": 1}
    assert await place_rows(connection) == (0, {})
    await operator.set_state("fra-1", NodeState.ACTIVE)
    assert await place_rows(connection) == (1, {})
    assert await live(root) == {key: ["fra-1", "fra-2", "fra-3"]}


async def test_one_daemon_at_a_time_lets_go(root, connection):
    async with root.transaction():
        await root.execute("SELECT pg_advisory_xact_lock(hashtextextended('reconciler leaving', 0))")
        assert await let_go(connection) is None
    assert await let_go(connection) is not None
