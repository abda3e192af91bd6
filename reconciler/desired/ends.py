"""Ending many subscriptions at once, by an operator who has typed their number."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from reconciler.desired import bounds
from reconciler.desired.orders import VALID_SECONDS, Ordered, Orders
from reconciler.desired.refunds import REFUND, Refunded, Refunds
from reconciler.desired.terms import Receipt
from reconciler.errors import Invalid, Unknown

_REVOKE = """
WITH due AS (
  SELECT id FROM reconciler.subscriptions WHERE id = ANY(%s) AND revoked_at IS NULL ORDER BY id FOR UPDATE)
UPDATE reconciler.subscriptions s SET revoked_at = now() FROM due WHERE s.id = due.id RETURNING s.id
"""


@dataclass(frozen=True, slots=True)
class MassRevoked:
    """The subscriptions that this revoke ended, and the orders that let their keys go."""

    subscription_ids: tuple[int, ...]
    orders: tuple[Ordered, ...]


@dataclass(frozen=True, slots=True)
class MassRefunded:
    """What of each subscription was given back, and the orders that let their keys go."""

    refunds: tuple[Refunded, ...]
    orders: tuple[Ordered, ...]


class Ends(Refunds, Orders):
    """
    The mass revoke and the mass refund.

    `count` is how many subscriptions the operator says they are. With
    `release`, each node on which keys of theirs have a live promise gets an
    order over exactly these keys, so that the guard lets them go.
    """

    async def revoke_all(
        self,
        subscription_ids: Sequence[int],
        count: int,
        *,
        release: bool,
        valid_seconds: int = VALID_SECONDS,
    ) -> MassRevoked:
        """End many subscriptions; those that had ended before are passed over. Raises Invalid, Unknown."""
        ids = _counted(subscription_ids, count)
        async with self._mass_end(ids):
            revoked = sorted(row[0] for row in await self._rows(_REVOKE, ids))
            orders = await self._let_go(revoked, valid_seconds) if release else ()
        return MassRevoked(tuple(revoked), orders)

    async def refund_all(
        self,
        subscription_ids: Sequence[int],
        count: int,
        receipt: Receipt = REFUND,
        *,
        release: bool,
        valid_seconds: int = VALID_SECONDS,
    ) -> MassRefunded:
        """
        End many subscriptions, and record what is given back for each, as `refund` does.

        Raises Invalid, Unknown, Taken.
        """
        ids = _counted(subscription_ids, count)
        receipt.check(refund=True)
        if len(ids) > 1 and (receipt.external_id is not None or receipt.amount is not None):
            raise Invalid("amount", receipt.amount, "an amount and an external_id belong to one subscription")
        async with self._mass_end(ids):
            refunds = await self._refund(ids, receipt)
            ended = [one.subscription_id for one in refunds if not one.repeated]
            orders = await self._let_go(ended, valid_seconds) if release else ()
        return MassRefunded(tuple(refunds), orders)

    @asynccontextmanager
    async def _mass_end(self, ids: list[int]) -> AsyncIterator[None]:
        """Open a transaction that may end these subscriptions by one statement. Raises Unknown."""
        async with self._transaction():
            rows = await self._rows("SELECT id FROM reconciler.subscriptions WHERE id = ANY(%s)", ids)
            if len(rows) < len(ids):
                raise Unknown("subscription", min(set(ids) - {row[0] for row in rows}))
            await self._row("SELECT set_config('reconciler.may_end', %s, true)", str(len(ids)))
            yield


def _counted(subscription_ids: Sequence[int], count: int) -> list[int]:
    ids = sorted({bounds.row_id("subscription", one) for one in subscription_ids})
    if count != len(ids) or not ids:
        raise Invalid("count", count, f"the number of these subscriptions, which is {len(ids)}")
    return ids
