"""Keys of a silent node go to others by themselves, where that is asked for, with real rows."""

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from reconciler.config import Config
from reconciler.config.sections import MoveConfig
from reconciler.daemon.rescue import Rescue
from reconciler.db.pool import Connection, Pool, open_pool
from reconciler.desired.writer import Operator
from reconciler.model import Node, NodeState, Outcome
from tests.parts_postgres import Database
from tests.placing import grant, live, node, per_node, place_rows

AFTER = 300


class Fleet:
    """Nodes as they answer, and the daemon's look at them, five seconds apart."""

    def __init__(self, root: Connection, pool: Pool) -> None:
        self.root = root
        self.now = 0.0
        self.share = 1.0
        self.after = AFTER
        self.nodes: dict[str, Node] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.rescue = Rescue(pool, self.config, lambda: self.now)

    def config(self) -> Config:
        move = MoveConfig(
            unreachable_after_seconds=self.after, unreachable_share=self.share, grace_seconds=60
        )
        return Config(move=move)

    async def add(
        self, operator: Operator, name: str, capacity: int | None = None, pool: str = "default"
    ) -> None:
        node_id = await node(operator, name, capacity, pool=pool)
        self.nodes[name] = Node(node_id, name, f"{name}:1", NodeState.ACTIVE, ())
        await self.answers(name, Outcome.CONVERGED)

    async def answers(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        await self.root.execute(
            "INSERT INTO reconciler.node_status (node_id, holder, outcome, last_attempt_at)"
            " VALUES (%s, 'test', %s, now()) ON CONFLICT (node_id) DO UPDATE SET outcome = excluded.outcome",
            (self.nodes[name].node_id, outcome),
        )

    async def passes(self, seconds: float, step: float = 5.0) -> set[str]:
        """Look every few seconds for so long; return the names of the nodes that were given keys."""
        given: set[int] = set()
        until = self.now + seconds
        while self.now < until:
            self.now += step
            seen = {it.node_id: (it, self.outcomes[name]) for name, it in self.nodes.items()}
            given |= set(await self.rescue.look(seen))
        return {name for name, it in self.nodes.items() if it.node_id in given}


@pytest.fixture
async def fleet(database: Database) -> AsyncIterator[Fleet]:
    pool = await open_pool(database.dsn_as("daemon"), 2)
    async with await database.connect() as root, await database.connect("daemon") as daemon:
        await daemon.set_autocommit(True)
        operator = Operator(root, "root")
        fleet = Fleet(root, pool)
        await fleet.add(operator, "fra-1")
        await grant(root, 20)
        await place_rows(daemon)
        await fleet.add(operator, "fra-2", capacity=15)
        await fleet.add(operator, "fra-3")
        await fleet.add(operator, "ams-1", pool="europe")
        yield fleet
    await pool.close(timeout=1)


async def leaving(fleet: Fleet) -> int:
    cursor = await fleet.root.execute(
        "SELECT count(*) FROM reconciler.placements WHERE leaving_at IS NOT NULL AND grace_seconds = 60"
    )
    ((number,),) = await cursor.fetchall()
    return int(number)


async def test_the_keys_of_a_node_that_is_silent_for_long_get_another_and_keep_it(fleet):
    await fleet.answers("fra-1", Outcome.UNREACHABLE)

    with capture_logs() as logs:
        assert await fleet.passes(AFTER) == set()
        assert await fleet.passes(10) == {"fra-2", "fra-3"}

    assert await per_node(fleet.root) == {"fra-1": 20, "fra-2": 10, "fra-3": 10}
    assert await leaving(fleet) == 20
    assert all(len(names) == 2 for names in (await live(fleet.root)).values())
    assert [(it["event"], it["node"], it["keys"], it["left"]) for it in logs] == [
        ("keys moved off a node that does not answer", "fra-1", 20, 0)
    ]
    assert await fleet.passes(120) == set(), "they have another now"


async def test_it_is_off_unless_it_is_asked_for(fleet):
    fleet.after = 0
    await fleet.answers("fra-1", Outcome.UNREACHABLE)

    assert await fleet.passes(4 * AFTER) == set()


async def test_a_node_that_answers_in_between_is_not_lost(fleet):
    for _ in range(3):
        await fleet.answers("fra-1", Outcome.UNREACHABLE)
        await fleet.passes(AFTER - 5)
        await fleet.answers("fra-1", Outcome.CHANGED)
        await fleet.passes(5)

    assert await leaving(fleet) == 0


async def test_a_host_that_slept_has_seen_nobody_silent_meanwhile(fleet):
    await fleet.answers("fra-1", Outcome.UNREACHABLE)

    assert await fleet.passes(3600, step=1800) == set()


async def test_while_half_of_the_nodes_are_silent_nobody_is_moved(fleet):
    for name in ("fra-1", "ams-1"):
        await fleet.answers(name, Outcome.UNREACHABLE)

    with capture_logs() as logs:
        assert await fleet.passes(2 * AFTER) == set()
        assert await leaving(fleet) == 0
        await fleet.answers("ams-1", Outcome.CONVERGED)
        assert await fleet.passes(60) == {"fra-2", "fra-3"}

    assert logs[0]["event"] == "keys stay on silent nodes: too many do not answer"
    assert len(logs) == 2


async def test_an_hour_moves_its_share_and_no_more(fleet):
    fleet.share = 0.25
    await fleet.answers("fra-1", Outcome.UNREACHABLE)

    with capture_logs() as logs:
        await fleet.passes(AFTER + 300)
    assert await leaving(fleet) == 5
    await fleet.root.execute(
        "UPDATE reconciler.placements SET leaving_at = leaving_at - interval '61 minutes'"
    )
    await fleet.passes(60)

    assert await leaving(fleet) == 10
    assert [it["event"].partition(":")[0] for it in logs] == [
        "keys moved off a node that does not answer",
        "keys stay on a node that does not answer",
    ]


async def test_where_there_is_no_room_keys_stay(fleet):
    await fleet.root.execute("UPDATE reconciler.nodes SET capacity = 0 WHERE name = 'fra-2'")
    await fleet.answers("fra-3", Outcome.REJECTED)
    await fleet.answers("fra-1", Outcome.UNREACHABLE)

    assert await fleet.passes(AFTER + 60) == set()
    assert await leaving(fleet) == 0


async def test_a_node_that_is_only_observed_or_left_alone_is_never_lost(fleet):
    await fleet.answers("fra-1", Outcome.UNREACHABLE)
    fleet.nodes["fra-1"] = Node(fleet.nodes["fra-1"].node_id, "fra-1", "fra-1:1", NodeState.OBSERVED, ())

    assert await fleet.passes(2 * AFTER) == set()
