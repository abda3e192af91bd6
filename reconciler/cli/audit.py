"""`audit`: who changed what of the desired state, and from what to what."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from reconciler.cli import targets
from reconciler.cli.options import json_option, moment
from reconciler.cli.screen import Cell, print_json, say, table
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.cli.words import date
from reconciler.desired import audit as trail
from reconciler.desired import look
from reconciler.desired.audit import Change, Target
from reconciler.errors import Unknown


@click.command()
@click.argument("what", metavar="[KEY|SUBSCRIPTION|USER|NODE]", required=False)
@click.option("--since", type=moment, metavar="TIME", help="Only from then on, with its time zone.")
@click.option("--role", metavar="NAME", help="Only what this login role of PostgreSQL wrote.")
@click.option("--limit", type=int, default=100, show_default=True, help="How many changes at most.")
@json_option
@click.pass_obj
@asynchronous
async def audit(
    path: Path | None,
    *,
    what: str | None,
    since: datetime | None,
    role: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """
    Tell who changed what: the latest changes of all rows, or of those that bear on one.

    That is every INSERT and UPDATE of users, subscriptions, keys, grants,
    nodes, inbounds, placements and orders, whatever wrote it, psql as well.
    Of a credential it is only told that it became another one. A statement
    over many rows is told by the first of them, unless one is asked for.
    """
    async with open_session(path) as session:
        kind, target = (None, None) if what is None else await _target(session, what)
        found = await trail.changes(session.connection, kind, target, since=since, role=role, limit=limit)
    if as_json:
        print_json({"changes": found})
    elif found:
        _print(found)
        if len(found) == limit:
            say(f"older ones are not shown: --limit {min(limit * 10, trail.GREATEST_LIMIT)}")
    else:
        say("no such change is on record")


async def _target(session: Session, text: str) -> tuple[Target, int]:
    """Return what is asked for. A bare number is a key; a node wins over a user of its name."""
    if (subscription := targets.maybe_subscription_id(text)) is not None:
        return "subscription", subscription
    if (key := await targets.maybe_key_id(session, text)) is not None:
        return "key", key
    if found := [node for node in await look.nodes(session.connection) if node.name == text]:
        return "node", found[0].node_id
    try:
        return "user", (await targets.user(session, text)).user_id
    except Unknown:
        raise Unknown("key, subscription, user or node", text) from None


def _print(found: Sequence[Change]) -> None:
    columns = ("at", "role", "by", "row", ">rows", "what", "before", "after")
    table(columns, [_cells(change) for change in found])


def _cells(change: Change) -> tuple[Cell, ...]:
    row = f"{change.table_name} {change.row_id}"
    what = change.column_name or "new"
    rows = change.rows if change.rows > 1 else None
    return date(change.at), change.role, change.application, row, rows, what, change.before, change.after
