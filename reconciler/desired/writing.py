"""
What every write of the desired state has in common: one transaction, and constraints that speak.

The bounds are asked in Python first; a constraint speaks only when another
write came in between, or when the bound hangs on what is stored. Then its
name says what was wrong. PostgreSQL's own text is dropped, cause and all,
because it quotes the refused row, and with it the credential.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, LiteralString, NamedTuple
from uuid import UUID, uuid4

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from reconciler.db.pool import Connection, store_errors
from reconciler.desired import bounds
from reconciler.errors import DesiredError, Invalid, StoreError, Taken, Unknown
from reconciler.model import Credential

POOL_LOCK: LiteralString = "pg_advisory_xact_lock(hashtextextended('reconciler pool ' || %s, 0))"
"""One at a time places keys on a pool's nodes, or changes what that hangs on; taken before any row."""

CREDENTIAL_CLASH = "… of another key: equal but for the third group, which Xray ignores,"

_REFUSALS: dict[str, tuple[Callable[..., DesiredError], *tuple[str, ...]]] = {
    "keys_credential_masked": (Taken, "credential", CREDENTIAL_CLASH),
    "grants_external_id_key": (Taken, "external_id", "of another write at this moment: look again,"),
    "grants_one_trial": (Taken, "trial", "of this person, who has one in a life,"),
    "nodes_name_key": (Taken, "node", "of this name"),
    "nodes_api_key": (Taken, "node", "with this api"),
    "inbounds_live_tag": (Taken, "inbound", "of this tag"),
    "subscriptions_end_after_start": (Invalid, "expires_at", "…", "after the start of the subscription"),
    "subscriptions_expires_at_check": (Invalid, "expires_at", "…", "before 2100-01-01, UTC"),
    "subscriptions_starts_at_check": (Invalid, "starts_at", "…", "from 2000-01-01, UTC"),
    "subscriptions_user_id_fkey": (Unknown, "user", "of this id"),
    "keys_subscription_id_fkey": (Unknown, "subscription", "of this id"),
    "placements_key_id_fkey": (Unknown, "key", "of this id"),
}


@contextmanager
def refusals() -> Iterator[None]:
    """Turn a violated constraint into Taken, Unknown or Invalid, by its name."""
    try:
        yield
    except psycopg.IntegrityError as error:
        name = error.diag.constraint_name or type(error).__name__
        kind, *words = _REFUSALS.get(name, (Invalid, name, "…", "what this constraint of the tables allows"))
        raise kind(*words) from None
    except psycopg.errors.NumericValueOutOfRange:
        raise Invalid("traffic_bytes", "…", "a sum that fits into 63 bits") from None


class LockedNode(NamedTuple):
    """A node whose row, and whose pool's placements, nobody else changes until we commit."""

    node_id: int
    state: str
    capacity: int | None
    pool: str


class Writing:
    """
    A connection on which one actor writes.

    `connection` must be idle: each operation is a transaction of its own.
    `actor` stands in the history of grants and on orders. `new_credential`
    makes the credentials that nobody gave.
    """

    def __init__(
        self,
        connection: Connection,
        actor: str,
        new_credential: Callable[[], UUID] = uuid4,
    ) -> None:
        self._connection = connection
        self._actor = bounds.text("actor", actor, 200)
        self._new_credential = new_credential

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            raise StoreError("a write needs a connection that is not inside a transaction or broken")
        with store_errors(), refusals():
            async with self._connection.transaction():
                yield

    async def _lock_node(self, name: str) -> LockedNode:
        await self._row(f"SELECT {POOL_LOCK % 'pool'} FROM reconciler.nodes WHERE name = %s", name)
        row = await self._row(
            "SELECT id, state, capacity, pool FROM reconciler.nodes WHERE name = %s FOR UPDATE", name
        )
        if row is None:
            raise Unknown("node", name)
        return LockedNode(*row)

    async def _must_exist(self, kind: Literal["key", "subscription"], row_id: int) -> None:
        if await self._row(f"SELECT id FROM reconciler.{kind}s WHERE id = %s", row_id) is None:
            raise Unknown(kind, row_id)

    def _fresh(self) -> Credential:
        return bounds.credential(self._new_credential())

    async def _row(self, query: LiteralString, *values: object, **named: object) -> TupleRow | None:
        """Return the first row; the query names its values, or takes them in order."""
        cursor = await self._connection.execute(query, named or values)
        return await cursor.fetchone()

    async def _rows(self, query: LiteralString, *values: object, **named: object) -> list[TupleRow]:
        cursor = await self._connection.execute(query, named or values)
        return await cursor.fetchall()
