"""
What happened on a node → its rows of status.

Every transaction is fenced by the node's lease, and sent in as few trips as
its answers allow: the fence is looked at last, and undoes what came after it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from reconciler.db.pool import Connection, Pool, store_errors
from reconciler.errors import LeaseLost
from reconciler.model import Desired, Instant, Outcome
from reconciler.plan.settle import Ended, Made, Settlement
from reconciler.plan.steps import Breach
from reconciler.status.lease import FENCE, Lease, fence_values

# A step that breaks a promise is counted before it is sent, so that no crash hides it from the guard.
# One that was counted within the hour stays on the budget that has paid for it.
_SPEND_KNOWN = """
UPDATE reconciler.promises
   SET early = CASE WHEN early_at > clock_timestamp() - interval '1 hour' THEN early ELSE %(breach)s END,
       early_at = clock_timestamp()
 WHERE node_id = %(node)s AND key_id = ANY(%(keys)s) AND ended_at IS NULL
"""
_SPEND_UNKNOWN = """
INSERT INTO reconciler.promises (key_id, node_id, account_digest, promised_until, early, early_at)
SELECT key, %(node)s, '', 'infinity', %(breach)s, clock_timestamp()
  FROM unnest(%(keys)s::bigint[]) AS key JOIN reconciler.keys k ON k.id = key
 WHERE NOT EXISTS (SELECT FROM reconciler.promises p
                    WHERE p.key_id = key AND p.node_id = %(node)s AND p.ended_at IS NULL)
"""

# Keys first, and each looked up by itself: right after thousands of promises were made or ended, PostgreSQL
# takes a node's for a handful, and would go through all of them once for each key.
_LIVE = """
CROSS JOIN LATERAL (SELECT l.id FROM reconciler.promises l
                     WHERE l.key_id = u.key AND l.node_id = %(node)s AND l.ended_at IS NULL LIMIT 1) AS live
OFFSET 0
"""

# An operator's release: the promises say from now on what the rows say.
_REBASE = f"""
UPDATE reconciler.promises p
   SET promised_until = least(p.promised_until, to_timestamp(due.seconds)), account_digest = due.digest,
       updated_at = clock_timestamp()
  FROM (SELECT live.id, u.seconds, u.digest
          FROM unnest(%(keys)s::bigint[], %(untils)s::float8[], %(digests)s::bytea[])
               AS u(key, seconds, digest) {_LIVE}) AS due
 WHERE p.id = due.id AND p.ended_at IS NULL
"""
_REBASE_UNKNOWN = """
INSERT INTO reconciler.promises (key_id, node_id, account_digest, promised_until)
SELECT u.key, %(node)s, u.digest, to_timestamp(u.seconds)
  FROM unnest(%(keys)s::bigint[], %(untils)s::float8[], %(digests)s::bytea[]) AS u(key, seconds, digest)
 WHERE NOT EXISTS (SELECT FROM reconciler.promises p
                    WHERE p.key_id = u.key AND p.node_id = %(node)s AND p.ended_at IS NULL)
"""
_ORDERS_DONE = (
    "UPDATE reconciler.orders SET done_at = clock_timestamp() WHERE id = ANY(%s) AND done_at IS NULL"
)

# A promise of another account makes room for the new one, which lasts at least as long.
_REPLACED = f"""
WITH replaced AS (
  UPDATE reconciler.promises p
     SET ended_at = clock_timestamp(), updated_at = clock_timestamp(), ended_reason = 'replaced'
    FROM (SELECT live.id, u.digest
            FROM unnest(%(keys)b::bigint[], %(digests)b::bytea[]) AS u(key, digest) {_LIVE}) AS due
   WHERE p.id = due.id AND p.ended_at IS NULL AND p.account_digest <> due.digest
  RETURNING p.key_id, p.promised_until)
SELECT key_id, date_part('epoch', promised_until) FROM replaced WHERE promised_until < 'infinity'
"""
_MADE = """
INSERT INTO reconciler.promises AS p (key_id, node_id, account_digest, promised_until)
SELECT u.key, %(node)s, u.digest, to_timestamp(u.seconds)
  FROM unnest(%(keys)b::bigint[], %(untils)b::float8[], %(digests)b::bytea[]) AS u(key, seconds, digest)
ON CONFLICT (key_id, node_id) WHERE ended_at IS NULL DO UPDATE
   SET promised_until = greatest(p.promised_until, excluded.promised_until), updated_at = clock_timestamp()
"""
_ENDED = f"""
UPDATE reconciler.promises p
   SET ended_at = clock_timestamp(), updated_at = clock_timestamp(), ended_reason = due.reason
  FROM (SELECT live.id, u.reason
          FROM unnest(%(keys)b::bigint[], %(reasons)b::text[]) AS u(key, reason) {_LIVE}) AS due
 WHERE p.id = due.id AND p.ended_at IS NULL
"""

_STATUS = f"""
WITH held AS ({FENCE})
INSERT INTO reconciler.node_status AS s (
  node_id, holder, outcome, active_users, desired_users, foreign_users, orphan_users, held_removals,
  boot_at, last_attempt_at, last_full_at, last_converged_at, error)
SELECT %(node)s, %(holder)s, %(outcome)s, coalesce(%(active)s, 0), coalesce(%(desired)s, 0),
  coalesce(%(foreign)s, 0), coalesce(%(orphans)s, 0), coalesce(%(held)s, 0), to_timestamp(%(boot)s),
  clock_timestamp(), CASE WHEN %(full)s THEN clock_timestamp() END,
  CASE WHEN %(converged)s THEN clock_timestamp() END, %(error)s
  FROM held
ON CONFLICT (node_id) DO UPDATE SET
  holder = excluded.holder, outcome = excluded.outcome, error = excluded.error,
  active_users = coalesce(%(active)s, s.active_users),
  desired_users = coalesce(%(desired)s, s.desired_users),
  foreign_users = coalesce(%(foreign)s, s.foreign_users),
  orphan_users = coalesce(%(orphans)s, s.orphan_users),
  held_removals = coalesce(%(held)s, s.held_removals), boot_at = coalesce(excluded.boot_at, s.boot_at),
  last_attempt_at = excluded.last_attempt_at, last_full_at = coalesce(excluded.last_full_at, s.last_full_at),
  last_converged_at = coalesce(excluded.last_converged_at, s.last_converged_at)
"""

_COUNTS = """
UPDATE reconciler.node_status
   SET active_users = greatest(0, active_users + %s), desired_users = greatest(0, desired_users + %s)
 WHERE node_id = %s
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many users a node holds, ours and others'; none of them is known while it does not answer."""

    active: int
    desired: int
    foreign: int
    orphans: int
    held: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What is said of a node after a cycle; `counts` is None when the node could not be listed."""

    outcome: Outcome
    counts: Counts | None = None
    boot_at: Instant | None = None
    error: str | None = None


class Recorder:
    """Writes status; raises LeaseLost, and then nothing was written, and StoreError's other kinds."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def spend(self, lease: Lease, breaches: Mapping[Breach, Sequence[int]]) -> None:
        """Count keys whose promise is about to be broken on their budget, before it is."""
        async with self._fenced(lease) as connection:
            for breach, key_ids in breaches.items():
                given = {"node": lease.node_id, "keys": sorted(key_ids), "breach": breach}
                await connection.execute(_SPEND_KNOWN, given)
                await connection.execute(_SPEND_UNKNOWN, given)

    async def rebase(
        self, lease: Lease, desired: Desired, key_ids: Sequence[int], orders: Sequence[int]
    ) -> None:
        """Carry out release orders: these promises say from now on what the rows say."""
        rows = [desired.rows[key_id] for key_id in sorted(key_ids)]
        given = {
            "node": lease.node_id,
            "keys": [row.key_id for row in rows],
            "untils": [row.until if row.desired else desired.now for row in rows],
            "digests": [row.digest for row in rows],
        }
        async with self._fenced(lease) as connection:
            await connection.execute(_REBASE, given)
            await connection.execute(_REBASE_UNKNOWN, given)
            await connection.execute(_ORDERS_DONE, (list(orders),))

    async def record_keys(
        self, lease: Lease, settlement: Settlement, more_active: int, more_desired: int
    ) -> None:
        """Write the promises of a few keys, and by how much the node's counts have changed since."""
        if _is_idle(settlement) and not (more_active or more_desired):
            return  # a bell for what another one has told already
        async with self._fenced(lease) as connection:
            await _make(connection, lease.node_id, [*settlement.made, *settlement.extended])
            await _end(connection, lease.node_id, settlement.ended)
            await connection.execute(_COUNTS, (more_active, more_desired, lease.node_id))

    async def record(
        self,
        lease: Lease,
        status: NodeStatus,
        settlement: Settlement | None = None,
        orders_done: Sequence[int] = (),
    ) -> None:
        """Write the promises of a cycle and the node's status, all or nothing."""
        values = _status_values(lease, status)
        if not orders_done and (settlement is None or _is_idle(settlement)):
            async with store_errors(), self._pool.connection() as connection:
                written = await connection.execute(_STATUS, values)
                if not written.rowcount:
                    raise LeaseLost(lease.node)
            return
        async with self._fenced(lease) as connection:
            if settlement is not None:
                await _make(connection, lease.node_id, [*settlement.made, *settlement.extended])
                await _end(connection, lease.node_id, settlement.ended)
            if orders_done:
                await connection.execute(_ORDERS_DONE, (list(orders_done),))
            await connection.execute(_STATUS, values)

    @asynccontextmanager
    async def _fenced(self, lease: Lease) -> AsyncIterator[Connection]:
        async with (
            store_errors(),
            self._pool.connection() as connection,
            connection.pipeline(),
            connection.transaction(),
        ):
            fence = await connection.execute(FENCE, fence_values(lease))
            yield connection
            if await fence.fetchone() is None:
                raise LeaseLost(lease.node)


def _is_idle(settlement: Settlement) -> bool:
    return not (settlement.made or settlement.extended or settlement.ended)


async def _make(connection: Connection, node_id: int, made: Sequence[Made]) -> None:
    if not made:
        return
    made = sorted(made, key=lambda promise: promise.key_id)
    given: dict[str, Any] = {
        "node": node_id,
        "keys": [promise.key_id for promise in made],
        "digests": [promise.digest for promise in made],
    }
    cursor = await connection.execute(_REPLACED, given)
    owed = {key_id: until async for key_id, until in cursor}
    given["untils"] = [max(promise.until, owed.get(promise.key_id, promise.until)) for promise in made]
    await connection.execute(_MADE, given)


async def _end(connection: Connection, node_id: int, ended: Sequence[Ended]) -> None:
    if not ended:
        return
    ended = sorted(ended, key=lambda promise: promise.key_id)
    given = {
        "node": node_id,
        "keys": [promise.key_id for promise in ended],
        "reasons": [str(promise.reason) for promise in ended],
    }
    await connection.execute(_ENDED, given)


def _status_values(lease: Lease, status: NodeStatus) -> dict[str, Any]:
    counts = status.counts
    return fence_values(lease) | {
        "outcome": status.outcome,
        "active": counts and counts.active,
        "desired": counts and counts.desired,
        "foreign": counts and counts.foreign,
        "orphans": counts and counts.orphans,
        "held": counts and counts.held,
        "boot": status.boot_at,
        "full": counts is not None,
        "converged": status.outcome in (Outcome.CONVERGED, Outcome.CHANGED),
        "error": status.error,
    }
