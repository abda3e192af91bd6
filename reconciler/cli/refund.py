"""`refund`: end subscriptions now, and record what is given back."""

from pathlib import Path
from typing import TypedDict, Unpack

import click

from reconciler.cli.ending import Ask, chosen, confirmed, held, release_option
from reconciler.cli.options import count_option, json_option
from reconciler.cli.orders import tell_ordered
from reconciler.cli.screen import print_json, remark, say
from reconciler.cli.session import asynchronous, open_session
from reconciler.desired import details, look
from reconciler.desired.refunds import Refunded
from reconciler.desired.terms import Receipt


class MoneyOptions(TypedDict):
    """What is given back, as options say it."""

    amount: int | None
    currency: str | None
    external_id: str | None
    note: str


@click.command()
@click.argument("subscriptions", metavar="[SUBSCRIPTION]...", nargs=-1)
@click.option("--user", metavar="USER", help="Refund all subscriptions of this user that are not revoked.")
@click.option("--amount", type=int, help="What is given back, in the currency's minor unit; else all paid.")
@click.option("--currency", metavar="EUR", help="Its currency.")
@click.option("--external-id", metavar="ID", help="Of the refund; the same again changes nothing.")
@click.option("--note", default="", help="A remark for the history.")
@release_option
@count_option("subscriptions")
@json_option
@click.pass_obj
@asynchronous
async def refund(
    path: Path | None,
    *,
    subscriptions: tuple[str, ...],
    user: str | None,
    release: bool | None,
    count: int | None,
    as_json: bool,
    **given: Unpack[MoneyOptions],
) -> None:
    """
    End subscriptions now, and record what is given back: no money is moved by it.

    That is all that is on record as paid, unless --amount says less. More
    than one are shown, their number is asked for, and the guard is ordered to
    let them go, as with `revoke`. `history` still tells what was sold.
    """
    if bool(subscriptions) + bool(user) != 1:
        raise click.UsageError("give either subscriptions or --user")
    ask = Ask(count, release, as_json)
    receipt = Receipt(kind="refund", **given)
    async with open_session(path) as session:
        ids = confirmed(await chosen(session, subscriptions, user), ask)
        done = await session.operator.refund_all(ids, len(ids), receipt, release=ask.releases(len(ids)))
        names = {node.node_id: node.name for node in await look.nodes(session.connection)}
        ended = await details.keys_of(session.connection, ids)
        warnings = await held(session, [key.key_id for key in ended])
    if as_json:
        print_json({"refunds": done.refunds, "orders": done.orders, "warnings": warnings})
    else:
        for one in done.refunds:
            say(_line(one))
    tell_ordered([(names[order.node_id], order) for order in done.orders], wait=False)
    for warning in warnings:
        remark(f"warning: {warning}")


def _line(refunded: Refunded) -> str:
    money = ", ".join(f"{one.amount} {one.currency} (minor unit)" for one in refunded.given_back)
    if refunded.repeated:
        return f"sub:{refunded.subscription_id} was refunded or revoked before; nothing is left to give back"
    return f"sub:{refunded.subscription_id} ended; {money or 'nothing on record as paid'} to give back"
