"""What the daemon asks of the database besides rows: is it the right one, why is it away, is there room."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import structlog

from reconciler.db.migrate import check_rights, check_schema
from reconciler.db.pool import Pool, connect, store_errors
from reconciler.desired.placement import place
from reconciler.errors import StoreError
from reconciler.status.health import Health
from reconciler.status.metrics import Metrics

log = structlog.get_logger()


@dataclass(slots=True)
class Database:
    """One database, by its pool and, where the pool does not say why it fails, by its DSN."""

    dsn: str = field(repr=False)
    pool: Pool
    health: Health
    metrics: Metrics
    _unplaced: dict[str, int] = field(default_factory=dict)

    async def check(self) -> None:
        """Raise SchemaMismatch or RightsMissing for a database not for us, StoreUnavailable for one away."""
        async with store_errors(), await connect(self.dsn) as connection:
            await check_schema(connection)
            await check_rights(connection)

    async def why(self, error: StoreError) -> str:
        """Return the reason behind `error`, asked for once without the pool."""
        try:
            await self.check()
        except StoreError as plainer:
            return str(plainer)
        return str(error)

    async def place(self, key_ids: Collection[int] | None) -> Collection[int]:
        """Place these keys, or all that lack a node; return the nodes that were given some."""
        async with store_errors(), self.pool.connection() as connection:
            placed = await place(connection, None if key_ids is None else sorted(key_ids))
        if key_ids is None:
            self._tell(placed.unplaced)
        return placed.nodes

    def _tell(self, unplaced: Mapping[str, int]) -> None:
        """Tell of each pool whose keys find no room, once for each change."""
        before, self._unplaced = self._unplaced, dict(unplaced)
        self.metrics.unplaced(sum(unplaced.values()))
        for pool in sorted(before.keys() | unplaced.keys()):
            if pool not in unplaced:
                log.info("every key of the pool has a node again", pool=pool)
            elif unplaced[pool] != before.get(pool):
                log.warning("keys without a node: their pool has no room", pool=pool, keys=unplaced[pool])
        if unplaced:
            pools = ", ".join(f"{keys} in {pool}" for pool, keys in unplaced.items())
            self.health.note("keys without a node", pools)
        else:
            self.health.clear("keys without a node")
