"""
Writing orders: an operator's word to the daemon, bound to exactly the keys that were shown.

An order holds its keys, their number and a digest of them, so that what it
allows cannot grow after the operator has seen it. A second order over the
same keys allows nothing more than the first.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from psycopg.rows import TupleRow

from reconciler.desired import bounds
from reconciler.desired.nodes import Nodes
from reconciler.errors import Invalid
from reconciler.model import NodeState

VALID_SECONDS = 3600
"""How long an order holds unless told otherwise: as long as the hour that the guard looks back on."""

Kind: TypeAlias = Literal["release", "purge_orphans", "empty", "leave_behind"]

_END_ALL = """
UPDATE reconciler.placements SET ended_at = now() WHERE node_id = %s AND ended_at IS NULL RETURNING key_id
"""

_LEAVE_ALL = """
UPDATE reconciler.placements SET leaving_at = coalesce(leaving_at, now()), grace_seconds = %(grace)s
 WHERE node_id = %(node)s AND ended_at IS NULL RETURNING key_id
"""

_INHABITANTS = """
SELECT key_id FROM reconciler.placements WHERE node_id = %(node)s AND ended_at IS NULL
UNION
SELECT key_id FROM reconciler.promises WHERE node_id = %(node)s AND ended_at IS NULL
"""

# Of the rows `keys(node_id, key_ids)`; the digest is the one that the table asks for.
_INSERT = """
INSERT INTO reconciler.orders (kind, node_id, key_ids, digest, count, actor, valid_until)
SELECT %(kind)s, node_id, key_ids, sha256(convert_to(array_to_string(key_ids, ','), 'UTF8')),
       cardinality(key_ids), %(actor)s, now() + %(seconds)s * interval '1 second'
  FROM keys ORDER BY node_id
RETURNING id, node_id, count, valid_until
"""

_OF_NODE = f"WITH keys AS (SELECT %(node)s::bigint AS node_id, %(keys)s::bigint[] AS key_ids) {_INSERT}"

_OF_PROMISES = f"""
WITH keys AS (
  SELECT p.node_id, array_agg(p.key_id ORDER BY p.key_id) AS key_ids
    FROM reconciler.promises p JOIN reconciler.keys k ON k.id = p.key_id
   WHERE k.subscription_id = ANY(%(subscriptions)s) AND p.ended_at IS NULL
   GROUP BY p.node_id)
{_INSERT}
"""


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order as written: for which node, over how many keys, until when."""

    order_id: int
    node_id: int
    count: int
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class Readdressed:
    """Whether the address of a node is another one now, and the order that it needed."""

    changed: bool
    order: Ordered | None = None


class Orders(Nodes):
    """The orders, and the writes that come with one. Every `node` is a node's name."""

    async def release(self, node: str, key_ids: Iterable[int], valid_seconds: int = VALID_SECONDS) -> Ordered:
        """Let the held early steps of these keys go. Raises Invalid, Unknown."""
        return await self._order("release", node, key_ids, valid_seconds)

    async def purge_orphans(
        self, node: str, key_ids: Iterable[int], valid_seconds: int = VALID_SECONDS
    ) -> Ordered:
        """Let these orphans, keys with our mark but without a row, be removed. Raises Invalid, Unknown."""
        return await self._order("purge_orphans", node, key_ids, valid_seconds)

    async def empty(
        self,
        node: str,
        key_ids: Iterable[int],
        *,
        grace_seconds: int | None = 0,
        valid_seconds: int = VALID_SECONDS,
    ) -> Ordered:
        """
        Have every key leave a draining node.

        Each goes once another node has had it for `grace_seconds`; what the
        rows want nowhere goes at once. Without a grace, None, all go at once,
        and nobody waits for other nodes. Raises Unknown, and Invalid for a
        node that is not draining, because it would get keys again, or that
        has keys which were not shown.
        """
        keys = bounds.key_ids(key_ids)
        kind: Kind = "release" if grace_seconds is None else "empty"
        async with self._transaction():
            locked = await self._lock_node(node)
            if locked.state != NodeState.DRAINING:
                raise Invalid("node", node, f"draining, and this one is {locked.state}")
            if grace_seconds is None:
                told = await self._rows(_END_ALL, locked.node_id)
            else:
                grace = bounds.grace_seconds(grace_seconds)
                told = await self._rows(_LEAVE_ALL, node=locked.node_id, grace=grace)
            _all_shown({row[0] for row in told}, keys)
            return await self._insert(kind, locked.node_id, keys, valid_seconds)

    async def set_api(
        self, node: str, api: str, behind: Collection[int] = (), valid_seconds: int = VALID_SECONDS
    ) -> Readdressed:
        """
        Change the address of a node.

        Keys that are placed or promised there stay on the Xray at the old
        address, where nobody looks after them any more, so all of them are to
        be named in `behind`, and the order keeps who said so. Raises Invalid,
        Unknown, Taken.
        """
        api = bounds.api(api)
        async with self._transaction():
            node_id = (await self._lock_node(node)).node_id
            row = await self._row("SELECT api FROM reconciler.nodes WHERE id = %s", node_id)
            if row == (api,):
                return Readdressed(changed=False)
            live = {row[0] for row in await self._rows(_INHABITANTS, node=node_id)}
            if live and not behind:
                raise Invalid(
                    "api", api, f"an order, because {len(live):,} keys would stay behind at the old address"
                )
            keys = bounds.key_ids(behind) if behind else []
            _all_shown(live, keys)
            await self._must_be_free(api, but=node_id)
            await self._row("UPDATE reconciler.nodes SET api = %s WHERE id = %s RETURNING id", api, node_id)
            order = await self._insert("leave_behind", node_id, keys, valid_seconds) if keys else None
        return Readdressed(changed=True, order=order)

    async def _let_go(self, subscription_ids: Sequence[int], valid_seconds: int) -> tuple[Ordered, ...]:
        """Order each node that owes something to keys of these subscriptions to let just these go."""
        _seconds(valid_seconds)
        rows = await self._rows(
            _OF_PROMISES,
            kind="release",
            subscriptions=list(subscription_ids),
            actor=self._actor,
            seconds=valid_seconds,
        )
        return tuple(_ordered(row) for row in rows)

    async def _order(self, kind: Kind, node: str, key_ids: Iterable[int], valid_seconds: int) -> Ordered:
        keys = bounds.key_ids(key_ids)
        _seconds(valid_seconds)
        async with self._transaction():
            return await self._insert(kind, (await self._lock_node(node)).node_id, keys, valid_seconds)

    async def _insert(self, kind: Kind, node_id: int, keys: list[int], valid_seconds: int) -> Ordered:
        _seconds(valid_seconds)
        row = await self._row(
            _OF_NODE, kind=kind, node=node_id, keys=keys, actor=self._actor, seconds=valid_seconds
        )
        assert row is not None, "an insert of one row returns it"
        return _ordered(row)


def _all_shown(live: set[int], shown: Collection[int]) -> None:
    """Raise Invalid when there are keys on the node that the operator has not seen."""
    unseen = live - set(shown)
    if unseen:
        bound = f"all keys of the node; {len(unseen):,} more are on it"
        raise Invalid("key_ids", f"{len(shown)} keys", bound)


def _seconds(valid_seconds: int) -> None:
    bounds.whole("valid_seconds", valid_seconds, 1, bounds.GREATEST_ORDER_SECONDS)


def _ordered(row: TupleRow) -> Ordered:
    return Ordered(*row)
