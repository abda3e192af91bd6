"""
Placing keys: a live row for every desired key that has none, and never more of them than a node may hold.

Any number of daemons may do it at once. A look at the rooms and a choice among
them need no lock; what was chosen is written under the lock of the pool, which
lasts for the transaction, and only as far as it still holds there. What does
not, is looked at again. Where keys ring, even the look was taken before they
did (see `Ahead`), so that a new key waits for one trip to the database.
Every live row counts against its node's capacity, those of expired keys too:
that keeps the room for a renewal, which brings a key back to its node and is
never refused. `Moves.vacate` gives up the room of keys long ended.

A key stays where it is for as long as it has a live row that was not told to
leave: on a draining node until its keys are moved, and on a disabled one,
because that is left alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import LiteralString, NamedTuple

from psycopg import sql

from reconciler.db.pool import Connection, store_errors
from reconciler.plan.place import Placement, Room, Wanted, choose

BATCH = 5_000
"""Rows written in one transaction: what a crash can lose, and how long others wait for the pool."""

RUNG_BATCH = 100
"""The same when keys were named: the most that the database rings for one by one."""

ATTEMPTS = 10
"""How often it is chosen anew where others wrote between look and lock; then it is left to the next look."""

_DUE: LiteralString = """
       k.revoked_at IS NULL AND s.revoked_at IS NULL AND s.starts_at <= now() AND now() < s.expires_at
"""

_USED: LiteralString = """
coalesce((SELECT sum(c.live) FROM reconciler.placement_counts c WHERE c.node_id = n.id), 0)::bigint
"""

# Ids only of pools with room: a fleet may be observed for long, or full, with very many keys waiting.
_WAITING = f"""
SELECT pool, count(*),
       CASE WHEN pool IN (SELECT n.pool FROM reconciler.nodes n
                           WHERE n.state = 'active' AND (n.capacity IS NULL OR n.capacity > {_USED}))
            THEN array_agg(id ORDER BY id) END
  FROM (SELECT k.id, k.pool FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
         WHERE {_DUE} AND k.spread = 'one' AND NOT EXISTS (
           SELECT FROM reconciler.placements p
            WHERE p.key_id = k.id AND p.ended_at IS NULL AND p.leaving_at IS NULL)
        UNION ALL
        SELECT k.id, k.pool FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
         WHERE {_DUE} AND k.spread = 'all' AND EXISTS (
           SELECT FROM reconciler.nodes n WHERE n.pool = k.pool AND n.state = 'active' AND NOT EXISTS (
             SELECT FROM reconciler.placements p
              WHERE p.key_id = k.id AND p.node_id = n.id AND p.ended_at IS NULL))) AS waiting
 GROUP BY pool ORDER BY pool
"""

# The array stands in a query of its own so that its length changes no plan, and one plan is made and kept.
_NAMED: LiteralString = """
FROM unnest((SELECT %(keys)s::bigint[])) AS named(id) JOIN reconciler.keys k ON k.id = named.id
"""

_LOOK = f"""
SELECT n.pool, n.id, n.name, n.capacity, {_USED}, NULL::boolean, NULL::bigint[]
  FROM reconciler.nodes n WHERE n.state = 'active' AND n.pool IN (SELECT k.pool {_NAMED})
UNION ALL
SELECT k.pool, k.id, NULL, NULL, NULL, k.spread = 'all',
       ARRAY(SELECT p.node_id FROM reconciler.placements p
              WHERE p.key_id = k.id AND p.ended_at IS NULL AND (p.leaving_at IS NULL OR k.spread = 'all'))
  {_NAMED} JOIN reconciler.subscriptions s ON s.id = k.subscription_id WHERE {_DUE}
"""

_ALL_ROOMS = f"""
SELECT n.pool, n.id, n.name, n.capacity, {_USED} FROM reconciler.nodes n WHERE n.state = 'active'
"""

# Two statements sent as one are one transaction, in one trip.
_ALONE: LiteralString = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SELECT * FROM"
_WRITE = sql.SQL(_ALONE + " reconciler.place_keys({}::bigint[], {}::bigint[], {})")
_WRITE_NEXT = sql.SQL(_ALONE + " reconciler.place_next({}::bigint[], {}::text[], {}::bigint[], {})")

REASON = "lowest share of its pool in use"


@dataclass(slots=True)
class Placed:
    """Which keys were placed, by node, and how many keys of which pools still lack one."""

    nodes: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    unplaced: Counter[str] = field(default_factory=Counter)

    @property
    def placements(self) -> int:
        """How many rows were written."""
        return sum(map(len, self.nodes.values()))

    def add(self, placements: Iterable[Placement]) -> None:
        """Note what was written."""
        for key_id, node_id in placements:
            self.nodes[node_id].add(key_id)


class Ahead:
    """
    Which nodes the next keys of each pool go to, chosen from the rooms as they were last seen.

    Capacity and state are judged again when a key is written, so what has
    changed since may only cost balance, by as many keys as are placed until
    the next look.
    """

    def __init__(self) -> None:
        self._turns: dict[str, list[int]] = {}
        self.worn = True
        """Whether a turn was taken since the last look."""

    async def look(self, connection: Connection) -> None:
        """Choose anew; raises StoreError and its kinds."""
        rooms = defaultdict[str, list[Room]](list)
        async with store_errors():
            for pool, *room in await (await connection.execute(_ALL_ROOMS, binary=True)).fetchall():
                rooms[pool].append(Room(*room))
        keys = [Wanted(number) for number in range(RUNG_BATCH)]
        self._turns = {pool: [node for _, node in choose(rooms[pool], keys)] for pool in rooms}
        self.worn = False

    def turns(self, number: int) -> tuple[list[str], list[int]]:
        """Return the pools and nodes of the next so many keys, whatever pools they are of."""
        turns = [(pool, node) for pool, nodes in self._turns.items() for node in nodes[:number]]
        return [pool for pool, _ in turns], [node for _, node in turns]

    def take(self, taken: Iterable[int]) -> None:
        """Strike the turns that these nodes had."""
        self.worn = True
        for node_id in taken:
            for nodes in self._turns.values():
                if node_id in nodes:
                    nodes.remove(node_id)
                    break


async def place(
    connection: Connection,
    key_ids: Sequence[int] | None = None,
    batch: int | None = None,
    ahead: Ahead | None = None,
) -> Placed:
    """
    Place every desired key that lacks a node, or those of `key_ids` that do.

    `connection` is idle; each batch of rows is a transaction of its own, so
    keys stay placed when a later batch fails. Keys of a pool without an open node
    stay unplaced and are counted. Raises StoreError and its kinds.
    """
    placed = Placed()
    if key_ids is None:
        batch = batch or BATCH
        async with store_errors():
            waiting = await (await connection.execute(_WAITING)).fetchall()
        placed.unplaced.update({pool: number for pool, number, keys in waiting if keys is None})
        todos = [keys for _, _, keys in waiting if keys is not None]
    else:
        batch = batch or RUNG_BATCH
        todos = [await _place_next(connection, sorted(key_ids), batch, placed, ahead or Ahead())]
    for todo in todos:
        rest = todo
        while rest:
            rest = await _place_some(connection, rest, batch, placed)
    return placed


async def _place_next(
    connection: Connection, todo: list[int], batch: int, placed: Placed, ahead: Ahead
) -> list[int]:
    """Place the first of `todo` on the nodes whose turn it is; return those that this did not place."""
    pools, nodes = ahead.turns(min(batch, len(todo)))
    if not nodes:
        return todo
    written = await _write(connection, _WRITE_NEXT.format(todo[:batch], pools, nodes, REASON))
    placed.add(written)
    ahead.take(node_id for _, node_id in written)
    done = {key_id for key_id, _ in written}
    return [key_id for key_id in todo if key_id not in done]


class _Need(NamedTuple):
    """A key, its pool, and how many rows it lacks."""

    pool: str
    wanted: Wanted
    rows: int


async def _place_some(connection: Connection, todo: list[int], batch: int, placed: Placed) -> list[int]:
    """Place the first of `todo`, as many as make `batch` rows; return the others."""
    some = todo[:batch]
    for _ in range(ATTEMPTS):
        rooms, needs = await _look(connection, some)
        now = _at_most(batch, needs)
        chosen = {pair for pool in rooms for pair in choose(rooms[pool], _of_pool(now, pool))}
        columns = [key_id for key_id, _ in chosen], [node_id for _, node_id in chosen]
        written = await _write(connection, _WRITE.format(*columns, REASON)) if chosen else set()
        placed.add(written)
        if written == chosen:
            break
    got = Counter(key_id for key_id, _ in written)
    placed.unplaced.update(need.pool for need in now if got[need.wanted.key_id] < need.rows)
    return [need.wanted.key_id for need in needs[len(now) :]] + todo[batch:]


async def _look(connection: Connection, keys: list[int]) -> tuple[dict[str, list[Room]], list[_Need]]:
    """Return the rooms of the pools that these keys belong to, and what the keys lack."""
    rooms, named = defaultdict[str, list[Room]](list), []
    async with store_errors():
        cursor = await connection.execute(_LOOK, {"keys": keys}, binary=True)
        for pool, row_id, name, capacity, used, everywhere, there in await cursor.fetchall():
            if name is not None:
                rooms[pool].append(Room(row_id, name, capacity, used))
            else:
                named.append((row_id, pool, everywhere, there))
    needs = []
    for key_id, pool, everywhere, there in sorted(named):
        if everywhere:
            missing = tuple(sorted({room.node_id for room in rooms[pool]}.difference(there)))
            needs.append(_Need(pool, Wanted(key_id, missing), len(missing)))
        elif not there:
            needs.append(_Need(pool, Wanted(key_id), 1))
    return rooms, [need for need in needs if need.rows]


async def _write(connection: Connection, statements: sql.Composed) -> set[Placement]:
    """Write what was chosen, and return as much of it as still held under the locks of the pools."""
    async with store_errors():
        cursor = await connection.execute(statements, prepare=False)
        cursor.nextset()
        return {Placement(*row) for row in await cursor.fetchall()}


def _of_pool(needs: Iterable[_Need], pool: str) -> list[Wanted]:
    return [need.wanted for need in needs if need.pool == pool]


def _at_most(batch: int, needs: list[_Need]) -> list[_Need]:
    """Return as many of the first as make `batch` rows; a key for many nodes may make more by itself."""
    sums = accumulate(need.rows for need in needs)
    return [need for need, rows in zip(needs, sums, strict=True) if rows <= batch] or needs[:1]
