"""Writing refunds: access ends now, and what was paid is given back, in the history and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.desired import bounds
from reconciler.desired.subscriptions import Subscriptions
from reconciler.desired.terms import Receipt
from reconciler.errors import Invalid, Taken, Unknown

REFUND = Receipt(kind="refund")

_LOCK = """
SELECT id, revoked_at IS NOT NULL FROM reconciler.subscriptions WHERE id = ANY(%s) ORDER BY id FOR UPDATE
"""

# Refunds stand with a minus, so that the sum is what the shop still holds.
_HELD = """
SELECT subscription_id, currency, sum(amount)::numeric FROM reconciler.grants
 WHERE subscription_id = ANY(%s) AND amount IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
"""

_END = """
UPDATE reconciler.subscriptions SET revoked_at = now() WHERE id = ANY(%s) AND revoked_at IS NULL RETURNING id
"""

_RECORD = """
INSERT INTO reconciler.grants (subscription_id, kind, amount, currency, actor, external_id,
                               resulting_expires_at, note)
SELECT s.id, 'refund', r.amount, r.currency, %(actor)s, CASE WHEN r.place = 1 THEN %(external)s::text END,
       s.revoked_at, %(note)s
  FROM unnest(%(subscriptions)s::bigint[], %(amounts)s::bigint[], %(currencies)s::text[])
       WITH ORDINALITY AS r (subscription_id, amount, currency, place)
  JOIN reconciler.subscriptions s ON s.id = r.subscription_id
"""

_FIRST = "SELECT subscription_id, kind, -amount, currency FROM reconciler.grants WHERE external_id = %s"


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in its currency's minor unit."""

    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Refunded:
    """
    What of a subscription was given back; nothing where nothing was on record as paid.

    `repeated` when an earlier write did it, and nothing changed.
    """

    subscription_id: int
    given_back: tuple[Money, ...]
    repeated: bool


class Refunds(Subscriptions):
    """The refund of one subscription, which the bot may write."""

    async def refund(self, subscription_id: int, receipt: Receipt = REFUND) -> Refunded:
        """
        End a subscription now, and record what is given back.

        That is all that is on record as paid, unless the receipt names an
        amount. A subscription that was refunded before is `repeated`. Raises
        Invalid (more than was paid among it), Unknown, and Taken for an
        external_id that stands with another write.
        """
        subscription_id = bounds.row_id("subscription", subscription_id)
        receipt.check(refund=True)
        async with self._transaction():
            (refunded,) = await self._refund([subscription_id], receipt)
        return refunded

    async def _refund(self, ids: Sequence[int], receipt: Receipt) -> list[Refunded]:
        """Within a transaction; an external_id or an amount makes sense with one subscription only."""
        if receipt.external_id is not None and (
            first := await self._refunded_as(receipt.external_id, ids[0])
        ):
            return [first]
        closed: dict[int, bool] = dict(await self._rows(_LOCK, ids))
        if missing := set(ids) - closed.keys():
            raise Unknown("subscription", min(missing))
        held: dict[int, list[Money]] = {one: [] for one in ids}
        for subscription_id, currency, amount in await self._rows(_HELD, ids):
            held[subscription_id].append(Money(int(amount), currency))
        refunded = [_refunded(one, held[one], receipt, closed=closed[one]) for one in ids]
        due = [one for one in refunded if not one.repeated]
        await self._rows(_END, [one.subscription_id for one in due])
        lines = [(one.subscription_id, money) for one in due for money in one.given_back or (None,)]
        await self._connection.execute(
            _RECORD,
            {
                "subscriptions": [subscription_id for subscription_id, _ in lines],
                "amounts": [money and -money.amount for _, money in lines],
                "currencies": [money and money.currency for _, money in lines],
                "actor": self._actor,
                "external": receipt.external_id,
                "note": receipt.note.strip(),
            },
        )
        return refunded

    async def _refunded_as(self, external_id: str, subscription_id: int) -> Refunded | None:
        """Wait for any other write of this external_id to end, and return what it gave back."""
        await self._lock_external(external_id)
        row = await self._row(_FIRST, external_id)
        if row is None:
            return None
        if row[0] != subscription_id or row[1] != "refund":
            raise Taken("external_id", external_id)
        money = () if row[2] is None else (Money(row[2], row[3]),)
        return Refunded(subscription_id, money, repeated=True)


def _refunded(subscription_id: int, held: list[Money], receipt: Receipt, *, closed: bool) -> Refunded:
    """Say what to give back: what the receipt names, or all that is held."""
    if receipt.amount is not None and receipt.currency is not None:
        asked = Money(receipt.amount, receipt.currency)
        most = {money.currency: money.amount for money in held}
        if held and asked.amount > most.get(asked.currency, 0):
            left = ", ".join(f"{money.amount} {money.currency}" for money in held if money.amount > 0)
            bound = f"at most what was paid and not given back: {left or 'nothing'}"
            raise Invalid("amount", f"{asked.amount} {asked.currency}", bound)
        return Refunded(subscription_id, (asked,), repeated=False)
    given = tuple(money for money in held if money.amount > 0)
    for money in given:
        bounds.whole("amount", money.amount, 1, bounds.GREATEST_BIGINT)
    return Refunded(subscription_id, given, repeated=closed and not given)
