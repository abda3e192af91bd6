"""
What a node has counted → the usage of keys, each byte once.

Checkpoint, usage and the run that they belong to change in one transaction,
fenced by the node's lease. A lock for each node makes one reading follow
another, because what is new in a reading is judged by rows that were read
before they are written.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.db.pool import Connection, Pool, store_errors
from reconciler.model import Instant, Vitals
from reconciler.plan.boots import Boot, Sighting, is_baseline, recognise
from reconciler.plan.counting import Counted, Counts, Reading, Remembered, count, present
from reconciler.status.lease import Lease, fence
from reconciler.status.ledger import Ledger

BATCH = 2_000
"""Keys that one statement is about: few milliseconds of ours."""

# Each row is to be looked up by its key: where rows have just come by the thousand, PostgreSQL takes them
# for a handful, and reads all of them for each. Waiting ends with lock_timeout; the next reading makes up.
_LOCK = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true),
       pg_advisory_xact_lock(hashtextextended('reconciler traffic ' || %s::bigint, 0))
"""


class Taken(NamedTuple):
    """A reading: the counters, the vitals from right before, and when that was, by our host's two clocks."""

    counts: Counts
    vitals: Vitals
    host_at: Instant
    monotonic: float


@dataclass(slots=True)
class Added:
    """What a reading has added."""

    boot: int  # the run that it is of
    new_boot: bool = False  # which follows another one
    up_bytes: int = 0
    down_bytes: int = 0
    fallen: int = 0
    unexplained: int = 0
    crossed: dict[int, list[int]] = field(default_factory=dict)
    """Subscriptions that these bytes brought to their limit, with their keys."""

    def take(self, counted: Counted) -> None:
        """Add what some of the readings change."""
        self.fallen += counted.fallen
        self.unexplained += counted.unexplained
        for change in counted.changes:
            self.up_bytes += change.more_up
            self.down_bytes += change.more_down


class Usage:
    """Counts traffic; raises LeaseLost, and then nothing was written, and StoreError's other kinds."""

    def __init__(self, pool: Pool, clock: Callable[[], float]) -> None:
        """`clock` is the monotonic one by which readings are dated."""
        self._pool = pool
        self._clock = clock

    async def add(self, lease: Lease, taken: Taken, last: Remembered | None) -> Added:
        """
        Count what is new in a reading of the lease's node.

        Whatever goes wrong, the same reading or a later one may simply follow.
        `last` tells what need not be looked at; with what comes back it is made anew.
        """
        async with self._serial(lease) as connection:
            ledger = Ledger(connection, lease.node_id)
            now, registered_at, boots = await ledger.boots()
            read_at = now - (self._clock() - taken.monotonic)
            seen = Sighting(taken.vitals, read_at, taken.host_at)
            found = await _recognised(ledger, boots, seen, taken.counts)
            boot = found or max((known.number for known in boots), default=0) + 1
            baseline = not boots and is_baseline(seen, registered_at)
            added = Added(boot, new_boot=bool(boots) and not found)
            if last is None or last.boot != boot:
                pieces = taken.counts.readings()
            else:
                pieces = last.changed(taken.counts)
            async for readings in _in_batches(pieces):
                counted = count(readings, await ledger.checkpoints(boot, readings), baseline=baseline)
                await ledger.write(boot, counted.changes)
                added.take(counted)
                added.crossed |= await ledger.crossed(counted.changes)
            await ledger.seen(boot, seen)
            await ledger.total(added.up_bytes, added.down_bytes)
            if added.crossed:
                await ledger.ring([*added.crossed])
        return added

    async def forget(self, node_id: int) -> None:
        """Clear away the checkpoints of runs long over."""
        async with store_errors(), self._pool.connection() as connection:
            await connection.execute("SELECT reconciler.forget_boots(%s)", (node_id,))

    @asynccontextmanager
    async def _serial(self, lease: Lease) -> AsyncIterator[Connection]:
        async with store_errors(), self._pool.connection() as connection, connection.transaction():
            # Each statement has to see what was committed before the lock was ours.
            await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            await connection.execute(_LOCK, (lease.node_id,))
            await fence(connection, lease)
            yield connection


async def _recognised(ledger: Ledger, boots: Sequence[Boot], seen: Sighting, counts: Counts) -> int | None:
    """Return the number of the run that a reading is of; None when it is a new one."""
    found = recognise(boots, seen)
    if found is None or (not found.sure and await _fell(ledger, found.boot.number, counts)):
        return None
    return found.boot.number


async def _fell(ledger: Ledger, boot: int, counts: Counts) -> bool:
    """Whether a counter of a run has fallen or vanished, which none does while it lasts."""
    met = 0
    async for readings in _in_batches(counts.readings()):
        checkpoints = await ledger.checkpoints(boot, readings)
        if count(readings, checkpoints).fallen:
            return True
        met += present(readings, checkpoints)
    return not counts.refused and await ledger.number(boot) > met


async def _in_batches(pieces: Iterator[list[Reading]]) -> AsyncIterator[list[Reading]]:
    """Gather pieces until they are worth a statement, and give way to others in between."""
    batch: list[Reading] = []
    for piece in pieces:
        batch += piece
        if len(batch) >= BATCH:
            yield batch
            batch = []
        await asyncio.sleep(0)
    if batch:
        yield batch
