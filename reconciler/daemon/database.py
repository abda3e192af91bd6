"""What the daemon asks of the database besides rows: is it the right one, and why is it away."""

from dataclasses import dataclass, field

from reconciler.db.migrate import check_rights, check_schema
from reconciler.db.pool import connect, store_errors
from reconciler.errors import StoreError


@dataclass(frozen=True, slots=True)
class Database:
    """One database by its DSN, for what the pool does not tell."""

    dsn: str = field(repr=False)

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
