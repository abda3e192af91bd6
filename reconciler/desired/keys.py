"""Writing keys: one more for a subscription, another credential, and the end of one."""

from dataclasses import dataclass, field
from typing import Literal, get_args
from uuid import UUID

from reconciler.desired import bounds
from reconciler.desired.writing import CREDENTIAL_CLASH, Writing
from reconciler.errors import Invalid, Taken, Unknown
from reconciler.model import Credential

Spread = Literal["one", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """
    The key to make: its pool, and whether it goes on one node of it or on all.

    `credential` is a UUID or its text; None is a new one by chance.
    """

    credential: str | UUID | Credential | None = field(default=None, repr=False)
    pool: str = "default"
    spread: Spread = "one"

    def check(self) -> None:
        """Raise Invalid for the first value out of its bound."""
        if self.credential is not None:
            bounds.credential(self.credential)
        bounds.label("pool", self.pool)
        if self.spread not in get_args(Spread):
            raise Invalid("spread", self.spread, "one or all")


ANY_KEY = NewKey()

# A clash is looked for here, because PostgreSQL's log would quote the credential that violates its index.
_ROTATE = """
UPDATE reconciler.keys SET credential = %(credential)s::uuid
 WHERE id = %(key)s
   AND NOT EXISTS (SELECT FROM reconciler.keys other
                    WHERE reconciler.masked(other.credential) = reconciler.masked(%(credential)s::uuid)
                      AND other.id <> %(key)s)
RETURNING id
"""


class Keys(Writing):
    """The writes of keys that the bot may do."""

    async def add_key(self, subscription_id: int, key: NewKey = ANY_KEY) -> int:
        """
        Give a subscription one more key, and return its id.

        Raises Invalid (a revoked subscription among them), Unknown, and
        Taken for a credential that clashes.
        """
        subscription_id = bounds.row_id("subscription", subscription_id)
        key.check()
        async with self._transaction():
            row = await self._row(
                "SELECT revoked_at IS NULL FROM reconciler.subscriptions WHERE id = %s FOR UPDATE",
                subscription_id,
            )
            if row is None:
                raise Unknown("subscription", subscription_id)
            if row != (True,):
                raise Invalid("subscription", subscription_id, "not revoked; reopen it first")
            return await self._insert_key(subscription_id, key)

    async def rotate(self, key_id: int, credential: str | UUID | Credential | None = None) -> None:
        """
        Give a key another credential, by chance unless one is given.

        Raises Invalid (a revoked key among them), Unknown, Taken.
        """
        key_id = bounds.row_id("key", key_id)
        fresh = self._fresh() if credential is None else bounds.credential(credential)
        async with self._transaction():
            row = await self._row(
                "SELECT revoked_at IS NULL FROM reconciler.keys WHERE id = %s FOR UPDATE", key_id
            )
            if row is None:
                raise Unknown("key", key_id)
            if row != (True,):
                raise Invalid("key", key_id, "not revoked")
            if await self._row(_ROTATE, key=key_id, credential=UUID(bytes=bytes(fresh))) is None:
                raise Taken("credential", CREDENTIAL_CLASH)

    async def revoke_key(self, key_id: int) -> bool:
        """End one key for good; False when it had ended before, and nothing changed. Raises Unknown."""
        return await self._set_end("key", key_id, revoked=True)

    async def _insert_key(self, subscription_id: int, key: NewKey) -> int:
        """Within a transaction. A clash is no error for PostgreSQL, whose log would quote the credential."""
        credential = self._fresh() if key.credential is None else bounds.credential(key.credential)
        row = await self._row(
            "INSERT INTO reconciler.keys (subscription_id, credential, pool, spread) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING id",
            subscription_id,
            UUID(bytes=bytes(credential)),
            key.pool,
            key.spread,
        )
        if row is None:
            raise Taken("credential", CREDENTIAL_CLASH)
        return int(row[0])

    async def _set_end(self, kind: Literal["key", "subscription"], row_id: int, *, revoked: bool) -> bool:
        row_id = bounds.row_id(kind, row_id)
        value = "now()" if revoked else "NULL"
        condition = "IS NULL" if revoked else "IS NOT NULL"
        async with self._transaction():
            row = await self._row(
                f"UPDATE reconciler.{kind}s SET revoked_at = {value}"
                f" WHERE id = %s AND revoked_at {condition} RETURNING id",
                row_id,
            )
            if row is None:
                await self._must_exist(kind, row_id)
        return row is not None
