"""Writing subscriptions: grant, extend, revoke, reopen, and the history of grants."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg

from reconciler.desired import bounds
from reconciler.desired.keys import ANY_KEY, Keys, NewKey
from reconciler.desired.terms import Receipt, Renewal, Term, check_renewal
from reconciler.errors import Invalid, Taken, Unknown

GIFT = Receipt()
EXTENSION = Receipt(kind="extension")

_INSERT_SUBSCRIPTION = """
INSERT INTO reconciler.subscriptions
  (user_id, plan, starts_at, expires_at, traffic_limit_bytes, traffic_renewal)
SELECT u.id, %(plan)s, start.at,
       coalesce(%(until)s::timestamptz, start.at + %(days)s::integer * interval '24 hours'),
       %(traffic)s::bigint, %(renewal)s
  FROM reconciler.users u, (SELECT coalesce(%(starts)s::timestamptz, now()) AS at) AS start
 WHERE u.id = %(user)s
RETURNING id, expires_at
"""

_EXTEND = """
UPDATE reconciler.subscriptions
   SET expires_at = CASE WHEN %(days)s = 0 THEN expires_at
                         ELSE greatest(expires_at, now()) + %(days)s * interval '24 hours' END,
       traffic_limit_bytes = traffic_limit_bytes + %(traffic)s::bigint
 WHERE id = %(subscription)s AND revoked_at IS NULL
RETURNING expires_at
"""

_SET_RENEWAL = """
UPDATE reconciler.subscriptions SET traffic_renewal = %(renewal)s
 WHERE id = %(subscription)s AND (traffic_limit_bytes IS NOT NULL OR %(renewal)s::text IS NULL)
RETURNING id
"""

_INSERT_GRANT = """
INSERT INTO reconciler.grants (subscription_id, kind, days, traffic_bytes, amount, currency, actor,
                               external_id, resulting_expires_at, note)
VALUES (%(subscription)s, %(kind)s, %(days)s, %(traffic)s, %(amount)s, %(currency)s, %(actor)s, %(external)s,
        %(expires)s, %(note)s)
RETURNING id
"""

_FIRST = """
SELECT s.user_id, g.subscription_id, g.resulting_expires_at,
       (SELECT min(k.id) FROM reconciler.keys k WHERE k.subscription_id = g.subscription_id), g.kind
  FROM reconciler.grants g JOIN reconciler.subscriptions s ON s.id = g.subscription_id
 WHERE g.external_id = %s
"""


_ENDS = {
    "subscriptions_end_after_start": "an end after the start, which is now unless it is given",
    "subscriptions_expires_at_check": "an end before 2100-01-01, UTC",
}
_LIMIT = "subscriptions_traffic_limit_bound"


@dataclass(frozen=True, slots=True)
class Granted:
    """A subscription with its first key; `repeated` when an earlier write made it, and nothing changed."""

    subscription_id: int
    key_id: int
    expires_at: datetime
    repeated: bool


@dataclass(frozen=True, slots=True)
class Extended:
    """Until when a subscription lasts; `repeated` when an earlier write had done it, and nothing changed."""

    expires_at: datetime
    repeated: bool


@dataclass(frozen=True, slots=True)
class _First:
    """What the first write of an external_id did."""

    user_id: int
    subscription_id: int
    expires_at: datetime
    key_id: int


class Subscriptions(Keys):
    """The writes of subscriptions that the bot may do."""

    async def grant(
        self, user_id: int, term: Term, key: NewKey = ANY_KEY, receipt: Receipt = GIFT
    ) -> Granted:
        """
        Give a user a subscription with one key.

        Raises Invalid, Unknown for the user, and Taken for a credential that
        clashes or an external_id that stands with another user's grant.
        """
        user_id = bounds.row_id("user", user_id)
        term.check()
        key.check()
        receipt.check()
        async with self._transaction():
            return await self._grant(user_id, term, key, receipt)

    async def extend(
        self, subscription_id: int, days: int, receipt: Receipt = EXTENSION, traffic_bytes: int = 0
    ) -> Extended:
        """
        Prolong a subscription, counted from its end or from now, whichever is later.

        `traffic_bytes` is added to the limit, if it has one; for that alone,
        `days` may be 0. Raises Invalid (a revoked subscription among them),
        Unknown, and Taken for an external_id that stands with another
        subscription.
        """
        subscription_id = bounds.row_id("subscription", subscription_id)
        bounds.whole("days", days, 0, bounds.GREATEST_DAYS)
        bounds.traffic(traffic_bytes)
        if days == 0 and traffic_bytes == 0:
            raise Invalid("days", days, "at least 1, unless traffic is added")
        receipt.check()
        async with self._transaction():
            first = await self._first(receipt)
            if first is not None:
                if first.subscription_id != subscription_id:
                    raise Taken("external_id", receipt.external_id)
                return Extended(first.expires_at, repeated=True)
            with _ends(days=days, traffic=traffic_bytes):
                row = await self._row(_EXTEND, subscription=subscription_id, days=days, traffic=traffic_bytes)
            if row is None:
                await self._must_exist("subscription", subscription_id)
                raise Invalid("subscription", subscription_id, "not revoked; reopen it first")
            term = Term(days=days, traffic_bytes=traffic_bytes or None)
            await self._record(subscription_id, term, receipt, row[0])
        return Extended(row[0], repeated=False)

    async def set_renewal(self, subscription_id: int, renewal: Renewal | None) -> None:
        """
        Say whether the limit of a subscription is for each month, or for its whole term.

        What it has used since its present month began stays counted. Raises
        Invalid for a subscription without a limit, and Unknown.
        """
        subscription_id = bounds.row_id("subscription", subscription_id)
        check_renewal(renewal)
        async with self._transaction():
            row = await self._row(_SET_RENEWAL, subscription=subscription_id, renewal=renewal)
            if row is None:
                await self._must_exist("subscription", subscription_id)
                raise Invalid("renewal", renewal, "with a limit of traffic only")

    async def revoke(self, subscription_id: int) -> bool:
        """End a subscription and all its keys; False when it had ended before, and nothing changed."""
        return await self._set_end("subscription", subscription_id, revoked=True)

    async def reopen(self, subscription_id: int) -> bool:
        """
        Take a revocation back; False when there was none.

        Keys that were revoked one by one stay so, and an expiry that has
        passed meanwhile has passed. Raises Unknown.
        """
        return await self._set_end("subscription", subscription_id, revoked=False)

    async def _grant(self, user_id: int, term: Term, key: NewKey, receipt: Receipt) -> Granted:
        first = await self._first(receipt)
        if first is not None:
            if first.user_id != user_id:
                raise Taken("external_id", receipt.external_id)
            return Granted(first.subscription_id, first.key_id, first.expires_at, repeated=True)
        with _ends(days=term.days, until=term.until):
            row = await self._row(
                _INSERT_SUBSCRIPTION,
                user=user_id,
                plan=term.plan.strip(),
                starts=term.starts_at,
                until=term.until,
                days=term.days,
                traffic=term.traffic_bytes,
                renewal=term.renewal,
            )
        if row is None:
            raise Unknown("user", user_id)
        subscription_id, expires_at = row
        key_id = await self._insert_key(subscription_id, key)
        await self._record(subscription_id, term, receipt, expires_at)
        return Granted(subscription_id, key_id, expires_at, repeated=False)

    async def _first(self, receipt: Receipt) -> _First | None:
        """Wait for any other write of this external_id to end, and return what it did."""
        if receipt.external_id is None:
            return None
        await self._lock_external(receipt.external_id)
        row = await self._row(_FIRST, receipt.external_id)
        if row is not None and row[4] == "refund":
            raise Taken("external_id", receipt.external_id)
        return None if row is None else _First(row[0], row[1], row[2], row[3])

    async def _lock_external(self, external_id: str) -> None:
        await self._row(
            "SELECT pg_advisory_xact_lock(hashtextextended('reconciler grant ' || %s, 0))", external_id
        )

    async def _record(self, subscription_id: int, term: Term, receipt: Receipt, expires_at: datetime) -> None:
        await self._row(
            _INSERT_GRANT,
            subscription=subscription_id,
            kind=receipt.kind,
            days=term.days,
            traffic=term.traffic_bytes,
            amount=receipt.amount,
            currency=receipt.currency,
            actor=self._actor,
            external=receipt.external_id,
            expires=expires_at,
            note=receipt.note.strip(),
        )


@contextmanager
def _ends(days: int | None, until: datetime | None = None, traffic: int | None = None) -> Iterator[None]:
    """Show what was given where only the database, whose rows and clock count, can judge what comes of it."""
    try:
        yield
    except psycopg.errors.CheckViolation as error:
        if error.diag.constraint_name == _LIMIT:
            greatest = f"a limit of at most {bounds.GREATEST_TRAFFIC_BYTES}, together with what it is now"
            raise Invalid("traffic_bytes", traffic, greatest) from None
        bound = _ENDS.get(error.diag.constraint_name or "")
        if bound is None:
            raise
        if until is not None:
            raise Invalid("until", str(until), bound) from None
        raise Invalid("days", days, bound) from None
