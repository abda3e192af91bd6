"""
Writing orders: an operator's word to the daemon, bound to exactly the keys that were shown.

An order holds its keys, their number and a digest of them, so that what it
allows cannot grow after the operator has seen it. A second order over the
same keys allows nothing more than the first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg.rows import TupleRow

from reconciler.desired import bounds
from reconciler.desired.writing import LockedNode, Writing
from reconciler.errors import Invalid, Unknown
from reconciler.model import NodeState

VALID_SECONDS = 3600
"""How long an order holds unless told otherwise: as long as the hour that the guard looks back on."""

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

_REVOKE = """
WITH due AS (
  SELECT id FROM reconciler.subscriptions WHERE id = ANY(%s) AND revoked_at IS NULL ORDER BY id FOR UPDATE)
UPDATE reconciler.subscriptions s SET revoked_at = now() FROM due WHERE s.id = due.id RETURNING s.id
"""


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order as written: for which node, over how many keys, until when."""

    order_id: int
    node_id: int
    count: int
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class MassRevoked:
    """The subscriptions that this revoke ended, and the orders that let their keys go."""

    subscription_ids: tuple[int, ...]
    orders: tuple[Ordered, ...]


class Orders(Writing):
    """The orders, and the writes that come with one. Every `node` is a node's name."""

    async def release(self, node: str, key_ids: Iterable[int], valid_seconds: int = VALID_SECONDS) -> Ordered:
        """Let the held early steps of these keys go. Raises Invalid, Unknown."""
        return await self._order("release", node, key_ids, valid_seconds)

    async def purge_orphans(
        self, node: str, key_ids: Iterable[int], valid_seconds: int = VALID_SECONDS
    ) -> Ordered:
        """Let these orphans, keys with our mark but without a row, be removed. Raises Invalid, Unknown."""
        return await self._order("purge_orphans", node, key_ids, valid_seconds)

    async def empty(self, node: str, key_ids: Iterable[int], valid_seconds: int = VALID_SECONDS) -> Ordered:
        """
        End every placement on a draining node, and let its keys be removed from it.

        Raises Unknown, and Invalid for a node that is not draining, because
        it would get keys again, or that has keys which were not shown.
        """
        return await self._order("empty", node, key_ids, valid_seconds)

    async def revoke_all(
        self,
        subscription_ids: Sequence[int],
        count: int,
        *,
        release: bool,
        valid_seconds: int = VALID_SECONDS,
    ) -> MassRevoked:
        """
        End many subscriptions at once; `count` is how many the operator says they are.

        With `release`, each node on which keys of theirs have a live promise
        gets an order over exactly these keys, so that the guard lets them go.
        Subscriptions that had ended before are passed over. Raises Invalid,
        Unknown.
        """
        ids = sorted({bounds.row_id("subscription", one) for one in subscription_ids})
        if count != len(ids) or not ids:
            raise Invalid("count", count, f"the number of these subscriptions, which is {len(ids)}")
        _seconds(valid_seconds)
        async with self._transaction():
            known = {
                row[0]
                for row in await self._rows("SELECT id FROM reconciler.subscriptions WHERE id = ANY(%s)", ids)
            }
            if len(known) < len(ids):
                raise Unknown("subscription", min(set(ids) - known))
            await self._row("SELECT set_config('reconciler.may_end', %s, true)", str(len(ids)))
            revoked = sorted(row[0] for row in await self._rows(_REVOKE, ids))
            orders = (
                await self._rows(
                    _OF_PROMISES,
                    kind="release",
                    subscriptions=revoked,
                    actor=self._actor,
                    seconds=valid_seconds,
                )
                if release
                else []
            )
        return MassRevoked(tuple(revoked), tuple(_ordered(row) for row in orders))

    async def _order(
        self,
        kind: Literal["release", "purge_orphans", "empty"],
        node: str,
        key_ids: Iterable[int],
        valid_seconds: int,
    ) -> Ordered:
        keys = bounds.key_ids(key_ids)
        _seconds(valid_seconds)
        async with self._transaction():
            locked = await self._lock_node(node)
            if kind == "empty":
                await self._end_placements(node, locked, keys)
            rows = await self._rows(
                _OF_NODE, kind=kind, node=locked.node_id, keys=keys, actor=self._actor, seconds=valid_seconds
            )
        return _ordered(rows[0])

    async def _end_placements(self, node: str, locked: LockedNode, keys: list[int]) -> None:
        if locked.state != NodeState.DRAINING:
            raise Invalid("node", node, f"draining, and this one is {locked.state}")
        rows = await self._rows(
            "UPDATE reconciler.placements SET ended_at = now()"
            " WHERE node_id = %s AND ended_at IS NULL RETURNING key_id",
            locked.node_id,
        )
        unseen = {row[0] for row in rows} - set(keys)
        if unseen:
            raise Invalid(
                "key_ids", f"{len(keys)} keys", f"all keys of the node; {len(unseen)} more are on it"
            )


def _seconds(valid_seconds: int) -> None:
    bounds.whole("valid_seconds", valid_seconds, 1, bounds.GREATEST_ORDER_SECONDS)


def _ordered(row: TupleRow) -> Ordered:
    return Ordered(*row)
