"""`history`: what was granted, extended and given back, and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from reconciler.cli import targets
from reconciler.cli.options import json_option
from reconciler.cli.screen import print_json, record, say
from reconciler.cli.session import asynchronous, open_session
from reconciler.cli.words import date, plain, size
from reconciler.desired import details, look
from reconciler.desired.look import GrantRow

Histories = Mapping[int, Sequence[GrantRow]]


@click.command()
@click.argument("what", metavar="SUBSCRIPTION|KEY|USER")
@json_option
@click.pass_obj
@asynchronous
async def history(path: Path | None, *, what: str, as_json: bool) -> None:
    """
    Tell what was granted, extended and given back: of a subscription, or of all of a user's.

    Who changed the rows by hand is told by `audit`.
    """
    async with open_session(path) as session:
        ids = await targets.subscription_ids(session, what)
        rows = {row.subscription_id: row for row in await details.subscriptions(session.connection, ids)}
        told = {number: await look.grants(session.connection, number) for number in ids}
    if as_json:
        print_json({"subscriptions": [record(rows[number], grants=told[number]) for number in ids]})
        return
    if not ids:
        say("There is no subscription of this user.")
    print_history(told)


def print_history(told: Histories) -> None:
    """Print what was granted, under the name of each subscription."""
    for number, grants in told.items():
        say(f"History of sub:{number}:", "bold")
        for grant in grants:
            say(f"  {_line(grant)}")


def _line(grant: GrantRow) -> str:
    words = [
        f"{date(grant.created_at)}  {grant.kind} by {plain(grant.actor)}",
        f"{grant.days} days" if grant.days else "",
        size(grant.traffic_bytes) if grant.traffic_bytes else "",
        f"until {date(grant.resulting_expires_at)}",
        f"for {grant.amount} {grant.currency} (minor unit)" if grant.amount is not None else "",
        f"as {plain(grant.external_id)}" if grant.external_id else "",
        plain(grant.note),
    ]
    return ", ".join(word for word in words if word)
