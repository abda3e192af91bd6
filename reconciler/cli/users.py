"""`user`: people."""

from collections.abc import Sequence
from pathlib import Path

import click

from reconciler.cli import targets
from reconciler.cli.options import json_option
from reconciler.cli.screen import answer, print_json, record, say, table
from reconciler.cli.session import asynchronous, open_session
from reconciler.cli.words import date, plain, size
from reconciler.desired import buckets as look_at
from reconciler.desired import look
from reconciler.desired.buckets import BUCKETS
from reconciler.desired.look import KeyState, SubscriptionState
from reconciler.desired.users import ROLES, User


@click.group()
def user() -> None:
    """Add, list and show users."""


@user.command()
@click.argument("name")
@click.option("--telegram", type=int, metavar="ID", help="The Telegram account, as its number.")
@json_option
@click.pass_obj
@asynchronous
async def add(path: Path | None, *, name: str, telegram: int | None, as_json: bool) -> None:
    """
    Add a user called NAME.

    With --telegram, a user of this account that is there already is the
    answer, unchanged.
    """
    async with open_session(path) as session:
        made = await session.operator.add_user(name, telegram)
    answer(_line(made), made, as_json=as_json)


@user.command("list")
@click.option(
    "--bucket",
    "buckets",
    type=click.Choice(BUCKETS),
    multiple=True,
    help="Only those with such a subscription; repeatable.",
)
@click.option("--within", type=int, metavar="DAYS", help="Only what ends within so many days, next first.")
@click.option("--limit", type=int, default=100, show_default=True, help="How many lines at most.")
@click.option("--offset", type=int, default=0, show_default=True, help="How many lines to pass over.")
@json_option
@click.pass_obj
@asynchronous
async def list_users(
    path: Path | None,
    *,
    buckets: tuple[str, ...],
    within: int | None,
    limit: int,
    offset: int,
    as_json: bool,
) -> None:
    """
    List users, a line for each subscription.

    Who may enter now is in the buckets active and expiring_in_7d.
    """
    if buckets and within is not None:
        raise click.UsageError("give --bucket or --within")
    async with open_session(path) as session:
        if within is None:
            rows = await look_at.users(session.connection, buckets, limit, offset)
        else:
            rows = await look_at.ending(session.connection, within, limit, offset)
    if as_json:
        print_json({"subscriptions": rows})
    elif rows:
        _print_subscriptions(rows, named=True)
        if len(rows) == limit:
            say(f"there may be more: --offset {offset + limit}")
    else:
        every = not buckets and within is None and not offset
        say("there is no user: add one by `reconciler user add`" if every else "there is none")


@user.command()
@json_option
@click.pass_obj
@asynchronous
async def totals(path: Path | None, *, as_json: bool) -> None:
    """Count subscriptions by bucket, and users without any."""
    async with open_session(path) as session:
        counted = await look_at.totals(session.connection)
    if as_json:
        print_json({"totals": counted})
    else:
        table(("bucket", ">number"), [(bucket, f"{number:,}") for bucket, number in counted.items()])


@user.command()
@click.argument("who", metavar="USER")
@json_option
@click.pass_obj
@asynchronous
async def show(path: Path | None, *, who: str, as_json: bool) -> None:
    """Show USER with all subscriptions and keys."""
    async with open_session(path) as session:
        found = await targets.user(session, who)
        subscriptions = await look.subscriptions(session.connection, found.user_id)
        keys = await look.keys(session.connection, found.user_id)
    if as_json:
        owned = [row for row in subscriptions if row.subscription_id is not None]
        print_json(record(found, subscriptions=owned, keys=[_without_template(key) for key in keys]))
        return
    say(_line(found), "bold")
    _print_subscriptions(subscriptions, named=False, keys=keys)
    if keys:
        say("")
        columns = ("key", "subscription", "node", "usable since", "used", "")
        table(columns, [_key_cells(key) for key in keys])


@user.command()
@click.argument("who", metavar="USER")
@click.argument("role", type=click.Choice(ROLES))
@json_option
@click.pass_obj
@asynchronous
async def role(path: Path | None, *, who: str, role: str, as_json: bool) -> None:
    """Set what USER may ask of the bot."""
    async with open_session(path) as session:
        found = await targets.user(session, who)
        await session.operator.set_role(found.user_id, role)
    words = f"user:{found.user_id} {plain(found.name)} is {role} now"
    answer(words, record(found, role=role), as_json=as_json)


def _line(user: User) -> str:
    telegram = f", tg:{user.telegram_id}" if user.telegram_id is not None else ""
    return f"user:{user.user_id} {plain(user.name)} ({user.role}{telegram})"


def _print_subscriptions(
    rows: Sequence[SubscriptionState], *, named: bool, keys: Sequence[KeyState] = ()
) -> None:
    columns = ["subscription", "bucket", "until", "used / limit", "plan"]
    head = ["user", "name"] if named else []
    owned = {key.subscription_id for key in keys}
    closed = owned - {key.subscription_id for key in keys if not key.revoked}
    table(head + columns, [_cells(row, named=named, closed=row.subscription_id in closed) for row in rows])


def _cells(row: SubscriptionState, *, named: bool, closed: bool) -> list[str | None]:
    """Return a line; `closed` says that every key of the subscription was revoked, so that none opens."""
    head = [f"user:{row.user_id}", row.user_name] if named else []
    if row.subscription_id is None:
        return [*head, None, row.bucket, None, None, None]
    bucket = f"{row.bucket}, all keys revoked" if closed and row.revoked_at is None else row.bucket
    limit = "no limit" if row.traffic_limit_bytes is None else size(row.traffic_limit_bytes)
    used = f"{size(row.used_bytes)} / {limit}"
    return [*head, f"sub:{row.subscription_id}", bucket, date(row.expires_at), used, row.plan]


def _key_cells(key: KeyState) -> list[str | None]:
    used = size(key.up_bytes + key.down_bytes)
    ended = "revoked" if key.revoked else ""
    return [f"k{key.key_id}", f"sub:{key.subscription_id}", key.node, date(key.usable_since), used, ended]


def _without_template(key: KeyState) -> dict[str, object]:
    return {name: value for name, value in record(key).items() if name != "link_template"}
