"""
A key that moves, while everything that moves it may die at any moment.

State is in rows only, so whatever died is run again from the start. Wherever
it died, and for as long as it takes, one of the two nodes lets the customer in.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from reconciler.config import Config
from reconciler.config.sections import GuardConfig
from reconciler.db.pool import Connection
from reconciler.desired.leaving import let_go
from reconciler.desired.placement import place
from reconciler.desired.writer import Operator
from reconciler.model import Credential
from tests.fakes import FakeNode
from tests.parts_postgres import Database
from tests.world import VLESS, World, make_world

SWEEPS = 6
"""After so many passes without a death, a move has come to its end."""


NEVER = -1

BOLD = Config(guard=GuardConfig(floor=1_000_000))
"""A guard that would hold no step back, so that nothing but the rule of moves keeps a key where it is."""


class Died(BaseException):
    """The program ended here."""


@dataclass
class Fate:
    """Lets so many moments pass, looks at the customer in each, and ends the program at the next one."""

    after: int
    lets_in: Callable[[], bool]
    passed: int = 0

    def moment(self) -> None:
        assert self.lets_in(), f"nobody lets the customer in, in moment {self.passed}"
        self.passed += 1
        if self.passed == self.after:
            raise Died


class MortalNode(FakeNode):
    """A node whose caller may die right before a call and right after it took effect."""

    moment: Callable[[], None] = staticmethod(lambda: None)

    async def _receive(self, timeout_seconds: float, *call: str) -> None:
        self.moment()
        await super()._receive(timeout_seconds, *call)

    def _answer(self) -> None:
        self.moment()
        super()._answer()


@dataclass
class Two:
    """Two nodes, each with its cycles, and one customer."""

    worlds: dict[str, World]
    nodes: dict[str, MortalNode]
    daemon: Connection
    operator: Operator
    key_id: int
    credential: Credential

    def usable(self) -> set[str]:
        """The nodes that let the customer in."""
        return {name for name, node in self.nodes.items() if node.opens(VLESS.tag, self.credential)}

    async def sweep(self) -> None:
        """What daemons do all the time, once."""
        await let_go(self.daemon)
        await place(self.daemon)
        for world in self.worlds.values():
            await world.cycle()
            await world.cycles.run_keys([self.key_id])

    async def keep_leases(self) -> None:
        for name, world in self.worlds.items():
            await world.leases.keep({world.node_id: name})

    async def on(self, name: str) -> bool:
        """Whether the customer is on this node only, by its rows, too."""
        rows = await self.worlds["n1"].execute(
            "SELECT n.name FROM reconciler.placements p JOIN reconciler.nodes n ON n.id = p.node_id"
            " WHERE p.ended_at IS NULL"
        )
        return rows == [(name,)] and self.usable() == {name}


@pytest.fixture
async def two(database: Database) -> AsyncIterator[Two]:
    nodes = {name: MortalNode(VLESS, name=name) for name in ("n1", "n2")}
    async with (
        make_world(database, nodes["n1"], api="n1:1", name="n1", config=lambda: BOLD) as first,
        make_world(database, nodes["n2"], api="n2:1", name="n2", config=lambda: BOLD) as second,
        await database.connect("daemon") as daemon,
        await database.connect("operator") as own,
    ):
        await daemon.set_autocommit(True)
        (key_id,) = await first.keys(1)
        two = Two(
            {"n1": first, "n2": second},
            nodes,
            daemon,
            Operator(own, "test"),
            key_id,
            await first.credential(key_id),
        )
        await two.sweep()
        assert await two.on("n1")
        yield two


@contextmanager
def mortal(two: Two, fate: Fate, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `fate` decide before and after every statement, and around every call of a node."""
    execute = psycopg.AsyncCursor.execute

    async def mortal_execute(self: Any, *words: Any, **more: Any) -> Any:
        fate.moment()
        answer = await execute(self, *words, **more)
        fate.moment()
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.AsyncCursor, "execute", mortal_execute)
        for node in two.nodes.values():
            patched.setattr(node, "moment", fate.moment)
        yield


async def ends(two: Two, target: str) -> bool:
    """Sweep until the customer is on the target only, and always on one of the two."""
    for _ in range(SWEEPS):
        if await two.on(target):
            return True
        await two.sweep()
        assert two.usable(), "nobody lets the customer in"
    return False


async def once(two: Two, order: Callable[[str], Any], target: str, fate: Fate, patch: Any) -> bool:
    """Order a move and sweep until it is done; whether somebody died on the way, as `fate` says."""
    try:
        with mortal(two, fate, patch):
            await order(target)
            assert await ends(two, target)
    except (Died, BaseExceptionGroup) as death:
        if isinstance(death, Died) or death.subgroup(Died):
            return True
        raise
    return False


@pytest.mark.parametrize("kind", ["move", "drain", "unplace"])
async def test_wherever_it_dies_the_customer_gets_in_and_the_move_ends(two, kind, monkeypatch):
    async def order(target: str) -> None:
        (source,) = {"n1", "n2"} - {target}
        if kind == "move":
            await two.operator.move(two.key_id, target, 0, "test")
        elif kind == "unplace":
            await two.operator.place_on(two.key_id, target, "test")
            await two.operator.end_placement(two.key_id, source)
        else:
            await two.worlds["n1"].execute(
                "UPDATE reconciler.nodes SET state = 'active' WHERE name = %s", target
            )
            await two.operator.drain(source, 0)

    deaths, died, target = 0, True, "n2"
    while died:
        deaths += 1
        died = await once(two, order, target, Fate(deaths, lambda: bool(two.usable())), monkeypatch)
        assert two.usable(), f"nobody lets the customer in after death {deaths}"
        assert not await once(two, order, target, Fate(NEVER, lambda: bool(two.usable())), monkeypatch)
        await two.keep_leases()
        target = "n1" if target == "n2" else "n2"

    assert deaths > 50
