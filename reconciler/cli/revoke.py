"""`revoke`: end keys, subscriptions, or all of a user's, and let them go when they are many."""

from collections.abc import Sequence
from pathlib import Path

import click

from reconciler.cli import targets
from reconciler.cli.confirm import confirm_count
from reconciler.cli.ending import Ask, chosen, confirmed, held, release_option
from reconciler.cli.options import count_option, json_option
from reconciler.cli.orders import print_keys, tell_ordered
from reconciler.cli.screen import print_json, remark, say
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.cli.words import plural
from reconciler.desired import details, look
from reconciler.desired.look import SubscriptionState


@click.command()
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--subscription", "subscriptions", multiple=True, metavar="S", help="End this one; repeatable.")
@click.option("--user", metavar="USER", help="End all subscriptions of this user.")
@release_option
@count_option("keys or subscriptions")
@json_option
@click.pass_obj
@asynchronous
async def revoke(
    path: Path | None,
    *,
    keys: tuple[str, ...],
    subscriptions: tuple[str, ...],
    user: str | None,
    release: bool | None,
    count: int | None,
    as_json: bool,
) -> None:
    """
    End keys, subscriptions, or all subscriptions of a user.

    More than one are shown, their number is asked for, and the guard is
    ordered to let just these go. Open connections are not cut: Xray has no
    way to.
    """
    if bool(keys) + bool(subscriptions) + bool(user) != 1:
        raise click.UsageError("give either keys, or --subscription, or --user")
    ask = Ask(count, release, as_json)
    async with open_session(path) as session:
        if keys:
            await _revoke_keys(session, sorted({await targets.key_id(session, key) for key in keys}), ask)
            return
        await _revoke_subscriptions(session, await chosen(session, subscriptions, user), ask)


async def _revoke_subscriptions(session: Session, rows: Sequence[SubscriptionState], ask: Ask) -> None:
    ids = confirmed(rows, ask)
    done = await session.operator.revoke_all(ids, len(ids), release=ask.releases(len(ids)))
    names = {node.node_id: node.name for node in await look.nodes(session.connection)}
    orders = [(names[order.node_id], order) for order in done.orders]
    ended = await details.keys_of(session.connection, done.subscription_ids)
    warnings = await held(session, [key.key_id for key in ended])
    if ask.as_json:
        subscriptions = done.subscription_ids
        print_json({"revoked_subscriptions": subscriptions, "orders": done.orders, "warnings": warnings})
    else:
        say(f"revoked {plural(len(done.subscription_ids), 'subscription')}")
        if len(done.subscription_ids) < len(ids):
            say(f"{len(ids) - len(done.subscription_ids)} had been revoked before")
    tell_ordered(orders, wait=False)
    for warning in warnings:
        remark(f"warning: {warning}")


async def _revoke_keys(session: Session, key_ids: Sequence[int], ask: Ask) -> None:
    rows = await details.keys(session.connection, key_ids)
    if len(key_ids) > 1:
        if not ask.as_json:
            cells = [(f"k{row.key_id}", f"sub:{row.subscription_id}", f"user:{row.user_id}") for row in rows]
            print_keys(("key", "subscription", "user"), cells)
        confirm_count(len(key_ids), "keys", ask.count)
    revoked = [key_id for key_id in key_ids if await session.operator.revoke_key(key_id)]
    released = revoked if ask.releases(len(key_ids)) else []
    promised = await details.promised(session.connection, released)
    orders = [(node, await session.operator.release(node, on_node)) for node, on_node in promised.items()]
    warnings = await held(session, revoked)
    if ask.as_json:
        given = [order for _, order in orders]
        print_json({"revoked_keys": revoked, "orders": given, "warnings": warnings})
    else:
        say(f"revoked {plural(len(revoked), 'key')}")
        if len(revoked) < len(key_ids):
            say(f"{len(key_ids) - len(revoked)} had been revoked before")
    tell_ordered(orders, wait=False)
    for warning in warnings:
        remark(f"warning: {warning}")
