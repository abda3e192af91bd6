"""What `revoke` and `refund` have in common: whom they end, the number, and what the guard makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import click

from reconciler.cli import targets
from reconciler.cli.confirm import confirm_count
from reconciler.cli.options import Command
from reconciler.cli.orders import print_keys
from reconciler.cli.session import Session
from reconciler.cli.words import date
from reconciler.desired import details
from reconciler.desired.look import SubscriptionState
from reconciler.errors import Invalid
from reconciler.loop.look import limits
from reconciler.plan.steps import Breach


@dataclass(frozen=True, slots=True)
class Ask:
    """What the operator said beside whom: the number, whether to let go, and how to answer."""

    count: int | None
    release: bool | None
    as_json: bool

    def releases(self, number: int) -> bool:
        """Whether to write orders: asked for, or because so many would be held."""
        return number > 1 if self.release is None else self.release


def release_option(command: Command) -> Command:
    """Give a command the option to order the guard, or not."""
    return click.option(
        "--release/--no-release",
        default=None,
        help="Order the guard to let these go at once; without a word, when they are more than one.",
    )(command)


async def chosen(session: Session, subscriptions: Sequence[str], user: str | None) -> list[SubscriptionState]:
    """Return these subscriptions, or all of a user's that are not revoked. Raises Invalid, Unknown."""
    if user:
        return await targets.subscriptions_of(session, user)
    return await details.subscriptions(session.connection, [_subscription(text) for text in subscriptions])


def confirmed(rows: Sequence[SubscriptionState], ask: Ask) -> list[int]:
    """Return the subscriptions, when there are several after they were shown and their number was typed."""
    ids = [row.subscription_id for row in rows if row.subscription_id is not None]
    if not ids:
        raise Invalid("user", "…", "one with a subscription that is not revoked")
    if len(ids) > 1:
        if not ask.as_json:
            cells = [
                (f"sub:{row.subscription_id}", row.user_name, row.bucket, date(row.expires_at))
                for row in rows
            ]
            print_keys(("subscription", "user", "bucket", "until"), cells)
        confirm_count(len(ids), "subscriptions", ask.count)
    return ids


async def held(session: Session, key_ids: Sequence[int]) -> list[str]:
    """Say on which nodes the guard will hold the removal of these keys, by the budget that we are given."""
    budget = limits(session.config)[Breach.EARLY]
    return [
        f"{row.node}: {row.spent + row.waiting:,} early removals asked in the last hour,"
        f" {int(budget.limit(row.promises)):,} let through without an order;"
        f" see `reconciler release {row.node}`"
        for row in await details.early_counts(session.connection, key_ids)
        if row.spent + row.waiting > budget.limit(row.promises)
    ]


def _subscription(text: str) -> int:
    found = targets.maybe_subscription_id(text if text.startswith("sub") else f"sub:{text}")
    if found is None:
        raise Invalid("subscription", text, "a subscription is written 5 or sub:5")
    return found
